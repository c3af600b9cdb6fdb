//! arrow-udf-runtime, which calls guests with Arrow record batches; here of one row.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use arrow_udf_runtime::wasm::{FunctionHandle, Runtime};

use crate::measure::Peer;
use crate::workers::Seat;

/// Base64 of `add(int64,int64)->int64`, as guests export it.
const EXPORT: &str = "YWRkKGludDY0LGludDY0KS0$aW50NjQ";

/// An unbounded pool of instances inside; it sets no deadline.
pub struct ArrowUdf {
    runtime: Runtime,
    add: FunctionHandle,
    arguments: SchemaRef,
}

impl ArrowUdf {
    pub fn new() -> Self {
        let runtime = Runtime::new(&guest()).expect("the guest is good");
        let types = vec![DataType::Int64, DataType::Int64];
        let add = runtime.find_function("add", types, DataType::Int64);
        Self {
            add: add.expect("the guest exports add"),
            arguments: schema(&["a", "b"]),
            runtime,
        }
    }
}

fn schema(names: &[&str]) -> SchemaRef {
    let field = |name: &&str| Field::new(*name, DataType::Int64, true);
    Arc::new(Schema::new(names.iter().map(field).collect::<Vec<_>>()))
}

fn one_row(schema: &SchemaRef, values: &[i64]) -> RecordBatch {
    let column = |&value| Arc::new(Int64Array::new(vec![value].into(), None)) as Arc<dyn Array>;
    RecordBatch::try_new(schema.clone(), values.iter().map(column).collect())
        .expect("one column for each field")
}

/// The file that stands for a batch, and where in it the values lie.
fn encoded(names: &[&str], values: &[i64]) -> (Vec<u8>, Vec<usize>) {
    let batch = one_row(&schema(names), values);
    let mut file = Vec::new();
    let writer = arrow_ipc::writer::FileWriter::try_new(&mut file, &batch.schema());
    let mut writer = writer.expect("a Vec takes everything");
    writer.write(&batch).expect("a Vec takes everything");
    writer.finish().expect("a Vec takes everything");
    drop(writer);
    let place = |value: &i64| {
        let bytes = value.to_le_bytes();
        let found = file.windows(8).position(|window| window == bytes);
        found.expect("values are stored as they are")
    };
    let places = values.iter().map(place).collect();
    (file, places)
}

/// A guest that does the least that the host accepts: it knows where the values of a batch of one
/// row lie, and answers with a file made beforehand that it writes their sum into. Real guests
/// decode and encode Arrow, which takes them longer.
fn guest() -> Vec<u8> {
    let (_, arguments) = encoded(&["a", "b"], &[0x1122_3344_5566_7788, 0x1a2b_3c4d_5e6f_7a8b]);
    let (answer, sum) = encoded(&["add"], &[0x2b3c_4d5e_6f7a_8b9c]);
    let bytes: String = answer.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let text = format!(
        r#"(module
            (memory (export "memory") 4)
            (data (i32.const 1024) "{bytes}")
            (func (export "ARROWUDF_VERSION_3_0"))
            (func (export "alloc") (param i32 i32) (result i32) (i32.const 65536))
            (func (export "dealloc") (param i32 i32 i32))
            (func (export "record_batch_iterator_next") (param i32 i32))
            (func (export "record_batch_iterator_drop") (param i32))
            (func (export "arrowudf_{EXPORT}") (param $in i32) (param i32) (param $out i32)
                (result i32)
                (i64.store (i32.const {sum}) (i64.add
                    (i64.load offset={a} (local.get $in)) (i64.load offset={b} (local.get $in))))
                (i32.store (local.get $out) (i32.const 1024))
                (i32.store offset=4 (local.get $out) (i32.const {length}))
                (i32.const 0)))"#,
        sum = 1024 + sum[0],
        a = arguments[0],
        b = arguments[1],
        length = answer.len(),
    );
    wat::parse_str(text).expect("the guest is well-formed")
}

impl Peer for ArrowUdf {
    type Hand = ();

    fn hand(&self, _: &Seat, _: u64) {}

    #[inline]
    fn call(&self, (): &mut (), a: i64, b: i64) -> i64 {
        let batch = one_row(&self.arguments, &[a, b]);
        let output = self.runtime.call(&self.add, &batch).expect("it adds");
        output.column(0).as_primitive::<Int64Type>().value(0)
    }
}
