//! What a process that compiles gives up before it reads what it is to compile. Each step is one that the process
//! takes itself, as it begins: nothing is done between `fork` and `exec`, where next to nothing may be.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetStatus, Scope};
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// Closes what this process has inherited beyond its standard streams. Rust opens nothing that would be inherited, but
/// other code of the host's may.
pub(super) fn close_others() -> io::Result<()> {
    let names = fs::read_dir("/proc/self/fd")?;
    // Read before the first is closed: the directory is one of them.
    let open: Vec<i32> = names
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in open {
        // That of the directory is closed already.
        let _ = nix::unistd::close(fd);
    }
    Ok(())
}

/// Ends with the thread that has started it, however that ends, and even if this process stands still then.
pub(super) fn die_with_parent() -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}

/// No privileges by what it executes, no core dumps, no claim on memory that others need.
pub(super) fn give_up_privileges() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    // Where the machine has no memory left, it is the first to go. (To want that takes no privilege.)
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    Ok(())
}

/// No file, no network, no signal to others, as far as the kernel can: whether it does.
pub(super) fn leave_files_alone() -> bool {
    let abi = ABI::V6;
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(abi)))
        .and_then(|rules| rules.scope(Scope::from_all(abi)))
        .and_then(Ruleset::create);
    let restricted = ruleset.and_then(|rules| rules.restrict_self());
    restricted.is_ok_and(|status| status.ruleset != RulesetStatus::NotEnforced)
}

/// No system call but those that compiling takes; all others are not implemented, as far as all threads of this process
/// can see. Whether it is so.
pub(super) fn forget_system_calls() -> bool {
    let apply = || -> Option<()> {
        let filter = SeccompFilter::new(
            rules()?,
            SeccompAction::Errno(libc::ENOSYS as u32),
            SeccompAction::Allow,
            std::env::consts::ARCH.try_into().ok()?,
        );
        let program: BpfProgram = filter.ok()?.try_into().ok()?;
        seccompiler::apply_filter_all_threads(&program).ok()
    };
    apply().is_some()
}

/// Without a rule, a call is allowed whatever its arguments are.
fn rules() -> Option<BTreeMap<i64, Vec<SeccompRule>>> {
    let plain = [
        libc::SYS_brk,
        libc::SYS_clock_gettime,
        libc::SYS_close,
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_fcntl,
        libc::SYS_fstat,
        libc::SYS_futex,
        libc::SYS_getpid,
        libc::SYS_getrandom,
        libc::SYS_gettid,
        libc::SYS_lseek,
        libc::SYS_madvise,
        libc::SYS_mprotect,
        libc::SYS_mremap,
        libc::SYS_munmap,
        libc::SYS_ppoll,
        libc::SYS_pread64,
        libc::SYS_pwrite64,
        libc::SYS_read,
        libc::SYS_recvmsg,
        libc::SYS_restart_syscall,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sched_getaffinity,
        libc::SYS_sched_yield,
        libc::SYS_sendmsg,
        libc::SYS_set_robust_list,
        libc::SYS_rseq,
        libc::SYS_sigaltstack,
        libc::SYS_statx,
        libc::SYS_write,
        libc::SYS_writev,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll,
    ];
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        plain.into_iter().map(|call| (call, Vec::new())).collect();
    // Memory that is shared, or grows by itself, is not what the limits count.
    let uncounted = libc::MAP_SHARED | libc::MAP_GROWSDOWN;
    let counted = without(3, uncounted as u64)?;
    rules.insert(libc::SYS_mmap, vec![counted]);
    // Threads, and no processes. (With flags in memory, `clone3` cannot be told apart: libraries do without.)
    let threads = libc::CLONE_VM | libc::CLONE_THREAD;
    rules.insert(libc::SYS_clone, vec![with(0, threads as u64)?]);
    // Signals to itself: how it aborts.
    let own = std::process::id();
    for call in [libc::SYS_kill, libc::SYS_tgkill] {
        rules.insert(call, vec![is(0, own.into())?]);
    }
    Some(rules)
}

fn rule(argument: u8, operator: SeccompCmpOp, value: u64) -> Option<SeccompRule> {
    let length = SeccompCmpArgLen::Dword;
    let condition = SeccompCondition::new(argument, length, operator, value).ok()?;
    SeccompRule::new(vec![condition]).ok()
}

/// The argument has none of these bits.
fn without(argument: u8, bits: u64) -> Option<SeccompRule> {
    rule(argument, SeccompCmpOp::MaskedEq(bits), 0)
}

/// The argument has all of these bits.
fn with(argument: u8, bits: u64) -> Option<SeccompRule> {
    rule(argument, SeccompCmpOp::MaskedEq(bits), bits)
}

fn is(argument: u8, value: u64) -> Option<SeccompRule> {
    rule(argument, SeccompCmpOp::Eq, value)
}
