//! Whether a process id found in a file name or a lock file still belongs to a process.

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// True when a process with this id exists, whoever owns it.
pub(crate) fn is_alive(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return false;
    };
    // EPERM means the process is there but belongs to somebody else.
    matches!(test_kill_process(pid), Ok(()) | Err(Errno::PERM))
}

#[cfg(test)]
mod tests {
    use super::is_alive;

    #[test]
    fn tells_the_living_from_the_dead() {
        assert!(is_alive(std::process::id()));
        assert!(!is_alive(0));
        assert!(!is_alive(u32::MAX));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(!is_alive(child.id()));
    }
}
