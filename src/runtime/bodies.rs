//! What a function body makes the compiler do: counted in one pass over its operators, without validating them.
//!
//! Only what drives the compiler's heap is counted (`compile_heap.rs`); `tests/compilations` compares the two.

use wasmparser::{BlockType, FunctionBody, Operator};

/// Pairs of label and local that are counted at most: with more, compiling takes gigabytes in any case.
const MOST_PAIRS: u64 = 1 << 26;

/// What a body has of each thing.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Body {
    /// With its parameters.
    pub locals: u64,
    pub operators: u64,
    /// Blocks that are open at once, at most.
    pub nesting: u64,
    pub loops: u64,
    pub ifs: u64,
    /// Targets of branches; of `br_table`s, those of all entries.
    pub branches: u64,
    pub br_table_entries: u64,
    /// What the host's code does for the guest: growing, filling, copying, and what looks into tables.
    pub libcalls: u64,
    pub calls: u64,
    /// Through tables and references.
    pub indirect_calls: u64,
    /// Parameters and results of all calls.
    pub call_values: u64,
    /// The compiler's translation keeps, for each variable (a local, or a parameter of a block), a list of the basic
    /// blocks up to the last that it occurs in. This is the length of all of them.
    pub slots: u64,
    /// For each label, locals that may differ where its edges meet, times the edges.
    pub phi_arguments: u64,
}

impl Body {
    /// Operators after which it may go on elsewhere.
    pub fn turns(&self) -> u64 {
        self.loops + self.ifs + self.branches + self.calls + self.indirect_calls
    }

    /// The most that either has of each thing.
    pub fn widest(&self, other: &Self) -> Self {
        let Self {
            locals,
            operators,
            nesting,
            loops,
            ifs,
            branches,
            br_table_entries,
            libcalls,
            calls,
            indirect_calls,
            call_values,
            slots,
            phi_arguments,
        } = *other;
        Self {
            locals: self.locals.max(locals),
            operators: self.operators.max(operators),
            nesting: self.nesting.max(nesting),
            loops: self.loops.max(loops),
            ifs: self.ifs.max(ifs),
            branches: self.branches.max(branches),
            br_table_entries: self.br_table_entries.max(br_table_entries),
            libcalls: self.libcalls.max(libcalls),
            calls: self.calls.max(calls),
            indirect_calls: self.indirect_calls.max(indirect_calls),
            call_values: self.call_values.max(call_values),
            slots: self.slots.max(slots),
            phi_arguments: self.phi_arguments.max(phi_arguments),
        }
    }
}

/// Parameters and results.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Arity {
    pub params: u64,
    pub results: u64,
}

impl Arity {
    pub fn values(self) -> u64 {
        self.params + self.results
    }
}

/// The types that a module's bodies refer to.
#[derive(Debug, Default)]
pub(crate) struct Signatures {
    pub types: Vec<Arity>,
    /// The type of every function, imported ones first.
    pub functions: Vec<u32>,
}

impl Signatures {
    pub fn of_type(&self, ty: u32) -> Arity {
        self.types.get(ty as usize).copied().unwrap_or_default()
    }

    pub fn of_function(&self, function: u32) -> Arity {
        let ty = self.functions.get(function as usize);
        ty.map_or_else(Arity::default, |ty| self.of_type(*ty))
    }

    fn of_block(&self, ty: BlockType) -> Arity {
        match ty {
            BlockType::Empty => Arity::default(),
            BlockType::Type(_) => Arity {
                params: 0,
                results: 1,
            },
            BlockType::FuncType(ty) => self.of_type(ty),
        }
    }
}

/// A block that is open.
#[derive(Debug, Default, Clone, Copy)]
struct Label {
    arity: Arity,
    is_loop: bool,
    /// The operator that opened it.
    opened: u64,
    /// Locals that occur in it; locals that change in it.
    seen: u64,
    changed: u64,
    edges: u64,
    /// The last basic block that branches to it.
    last: u64,
}

/// Where a local occurred last, and where it changed last: numbers of operators; and the last basic block.
#[derive(Debug, Default, Clone, Copy)]
struct Local {
    seen: u64,
    changed: u64,
    block: u64,
}

/// Scans bodies one after the other; keeps its memory for the next.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    locals: Vec<Local>,
    labels: Vec<Label>,
    body: Body,
    /// Basic blocks so far.
    blocks: u64,
    /// Pairs of label and local so far.
    pairs: u64,
}

/// How many locals a body has, without its parameters; cheap.
pub(crate) fn locals_of(body: &FunctionBody<'_>) -> wasmparser::Result<u64> {
    let mut locals = 0_u64;
    for group in body.get_locals_reader()? {
        locals += u64::from(group?.0);
    }
    Ok(locals)
}

impl Scan {
    /// Counts what a body of this type has.
    ///
    /// # Errors
    /// It cannot be read. No compiler gets further.
    pub fn body(
        &mut self,
        body: &FunctionBody<'_>,
        arity: Arity,
        signatures: &Signatures,
    ) -> wasmparser::Result<Body> {
        let locals = arity.params + locals_of(body)?;
        self.locals.clear();
        // More than there may be are refused by the compiler before it begins.
        let most = 50_000 + 1000;
        self.locals
            .resize(locals.min(most) as usize, Local::default());
        self.labels.clear();
        self.labels.push(Label {
            arity,
            ..Label::default()
        });
        self.body = Body {
            locals,
            ..Body::default()
        };
        (self.blocks, self.pairs) = (3, 0);
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            self.body.operators += 1;
            self.operator(&operators.read()?, signatures)?;
        }
        let slots = self.locals.iter().map(|local| local.block).sum::<u64>();
        self.body.slots += slots;
        Ok(self.body)
    }

    fn operator(
        &mut self,
        operator: &Operator<'_>,
        signatures: &Signatures,
    ) -> wasmparser::Result<()> {
        use Operator as O;
        match operator {
            O::Block { blockty } => self.open(signatures.of_block(*blockty), false, 1),
            O::TryTable { try_table } => {
                self.open(signatures.of_block(try_table.ty), false, 1);
                self.body.libcalls += try_table.catches.len() as u64;
            }
            O::Loop { blockty } => {
                self.body.loops += 1;
                self.open(signatures.of_block(*blockty), true, 5);
            }
            O::If { blockty } => {
                self.body.ifs += 1;
                self.open(signatures.of_block(*blockty), false, 3);
            }
            O::End => self.close(),
            O::Br { relative_depth }
            | O::BrIf { relative_depth }
            | O::BrOnNull { relative_depth }
            | O::BrOnNonNull { relative_depth }
            | O::BrOnCast { relative_depth, .. }
            | O::BrOnCastFail { relative_depth, .. } => {
                self.branch(*relative_depth);
                self.blocks += 1;
            }
            O::BrTable { targets } => {
                self.body.br_table_entries += u64::from(targets.len()) + 1;
                self.blocks += 1;
                self.branch(targets.default());
                for depth in targets.targets() {
                    self.branch(depth?);
                }
            }
            O::Call { function_index } | O::ReturnCall { function_index } => {
                self.body.calls += 1;
                self.body.call_values += signatures.of_function(*function_index).values();
            }
            O::CallIndirect { type_index, .. }
            | O::ReturnCallIndirect { type_index, .. }
            | O::CallRef { type_index }
            | O::ReturnCallRef { type_index } => {
                self.body.indirect_calls += 1;
                self.body.call_values += signatures.of_type(*type_index).values();
                self.blocks += 2;
            }
            O::LocalGet { local_index } => self.local(*local_index, false),
            O::LocalSet { local_index } | O::LocalTee { local_index } => {
                self.local(*local_index, true);
            }
            other if is_libcall(other) => {
                self.body.libcalls += 1;
                self.blocks += 2;
            }
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, arity: Arity, is_loop: bool, blocks: u64) {
        self.blocks += blocks;
        self.labels.push(Label {
            arity,
            is_loop,
            opened: self.body.operators,
            seen: 0,
            changed: 0,
            edges: 1,
            last: self.blocks,
        });
        // The function itself is the first.
        let nesting = self.labels.len() as u64 - 1;
        self.body.nesting = self.body.nesting.max(nesting);
    }

    fn close(&mut self) {
        let Some(label) = self.labels.pop() else {
            return;
        };
        let differ = match label.is_loop {
            // As long as it is open, any local that occurs in it may differ.
            true => label.seen,
            false => label.changed,
        };
        let body = &mut self.body;
        body.phi_arguments += differ.saturating_mul(label.edges + 1);
        let Arity { params, results } = label.arity;
        body.slots += results * self.blocks + params * label.last;
    }

    fn branch(&mut self, depth: u32) {
        self.body.branches += 1;
        let at = self.labels.len().checked_sub(1 + depth as usize);
        if let Some(label) = at.and_then(|at| self.labels.get_mut(at)) {
            label.edges += 1;
            label.last = self.blocks;
        }
    }

    fn local(&mut self, index: u32, changes: bool) {
        let (now, blocks) = (self.body.operators, self.blocks);
        let Some(local) = self.locals.get_mut(index as usize) else {
            return;
        };
        let before = *local;
        (local.seen, local.block) = (now, blocks);
        if changes {
            local.changed = now;
        }
        if self.pairs > MOST_PAIRS {
            return;
        }
        // It is new to the labels that were opened since.
        for label in self.labels.iter_mut().rev() {
            let is_new = label.opened > before.seen || before.seen == 0;
            let changes_first = changes && (label.opened > before.changed || before.changed == 0);
            if !is_new && !changes_first {
                break;
            }
            label.seen += u64::from(is_new);
            label.changed += u64::from(changes_first);
            self.pairs += 1;
        }
    }
}

/// Whether the compiler calls the host's code for it, or makes several blocks of it.
fn is_libcall(operator: &Operator<'_>) -> bool {
    use Operator as O;
    matches!(
        operator,
        O::MemoryGrow { .. }
            | O::MemorySize { .. }
            | O::MemoryCopy { .. }
            | O::MemoryFill { .. }
            | O::MemoryInit { .. }
            | O::DataDrop { .. }
            | O::ElemDrop { .. }
            | O::TableGet { .. }
            | O::TableSet { .. }
            | O::TableGrow { .. }
            | O::TableSize { .. }
            | O::TableCopy { .. }
            | O::TableFill { .. }
            | O::TableInit { .. }
            | O::RefFunc { .. }
            | O::Throw { .. }
            | O::ThrowRef
            | O::StructNew { .. }
            | O::StructNewDefault { .. }
            | O::StructGet { .. }
            | O::StructSet { .. }
            | O::ArrayNew { .. }
            | O::ArrayNewDefault { .. }
            | O::ArrayNewFixed { .. }
            | O::ArrayNewData { .. }
            | O::ArrayNewElem { .. }
            | O::ArrayGet { .. }
            | O::ArraySet { .. }
            | O::ArrayFill { .. }
            | O::ArrayCopy { .. }
            | O::ArrayInitData { .. }
            | O::ArrayInitElem { .. }
            | O::RefTestNonNull { .. }
            | O::RefTestNullable { .. }
            | O::RefCastNonNull { .. }
            | O::RefCastNullable { .. }
    )
}
