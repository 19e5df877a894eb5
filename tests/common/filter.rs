//! Filters of system calls (seccomp): what a sandbox or an older kernel refuses.

/// Has these calls of the calling thread, and of what it starts, fail with these errors from now on.
pub(crate) fn refuse_here(calls: &[(libc::c_long, i32)]) {
    install(calls, 0);
}

/// The same for all threads of the process.
pub(crate) fn refuse_everywhere(calls: &[(libc::c_long, i32)]) {
    install(calls, libc::SECCOMP_FILTER_FLAG_TSYNC);
}

fn install(calls: &[(libc::c_long, i32)], flags: libc::c_ulong) {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    // The number of the call is the first word of what a filter looks at.
    let mut program = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    for (call, error) in calls {
        let code = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        program.push(libc::sock_filter { code, jt: 0, jf: 1, k: *call as u32 });
        program.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | *error as u32));
    }
    program.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: takes numbers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the kernel copies a program that is there until the call returns.
    let installed =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter) };
    assert_eq!(installed, 0, "{}", std::io::Error::last_os_error());
}
