//! Socket activation (sd_listen_fds(3)): sockets that the caller was started with are the container's. In: LISTEN_PID,
//! LISTEN_FDS. Out: how many there are. Must never: take sockets that are meant for another process.

/// More sockets than this are a mistake.
const SOCKETS_MAX: u32 = 1 << 10;

/// How many fds behind the standard streams are sockets for the container.
pub fn sockets() -> u32 {
    let variable = |name: &str| std::env::var(name).ok()?.parse().ok();
    count(std::process::id(), variable("LISTEN_PID"), variable("LISTEN_FDS"))
}

fn count(own_pid: u32, pid: Option<u32>, count: Option<u32>) -> u32 {
    count.filter(|count| pid == Some(own_pid) && *count <= SOCKETS_MAX).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_taken_only_where_they_are_meant() {
        assert_eq!(count(7, Some(7), Some(2)), 2);
        assert_eq!(count(7, Some(8), Some(2)), 0);
        assert_eq!(count(7, None, Some(2)), 0);
        assert_eq!(count(7, Some(7), None), 0);
        assert_eq!(count(7, Some(7), Some(u32::MAX)), 0);
    }
}
