//! File descriptors: the limit of open files, and the connections that it allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::transport::ADMIN_CONNECTIONS;

/// Connections of clients for which a process raises its limit, if it may.
const WANTED_CONNECTIONS: usize = 8192;

/// Fewer are an error: a process with so few would reject clients in normal operation.
const FEWEST_CONNECTIONS: usize = 64;

/// Descriptors for all that is not a client or a service: listeners, epoll, the log, certificates,
/// the connection that is being rejected, connections that are being replaced.
const OTHERS: usize = 64;

/// Raises the soft limit of open files to the hard limit, as far as the process needs it. Returns
/// the number of client connections that fit, at most 8192. The rest is reserved for `services`
/// (connections to Postgres and Redis), the admin port, and files.
///
/// # Errors
/// If the limit leaves fewer than 64 connections.
pub fn client_connections(services: usize) -> anyhow::Result<usize> {
    let reserved = reserved(services);
    let limit = raise((WANTED_CONNECTIONS + reserved) as u64);
    let connections = fitting(limit, reserved)?;
    tracing::info!(connections, reserved, limit, "file descriptors");
    Ok(connections)
}

fn reserved(services: usize) -> usize {
    services + ADMIN_CONNECTIONS + OTHERS
}

fn fitting(limit: u64, reserved: usize) -> anyhow::Result<usize> {
    let fewest = FEWEST_CONNECTIONS + reserved;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    anyhow::ensure!(
        limit >= fewest,
        "the limit of open files is {limit}, and at least {fewest} are needed; raise it with \
         ulimit -n, LimitNOFILE (systemd) or ulimits (compose)"
    );
    Ok((limit - reserved).min(WANTED_CONNECTIONS))
}

/// Raises the soft limit of open files to `wanted`, or to the hard limit if that is lower. Returns
/// the limit.
pub fn raise(wanted: u64) -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let current = current.unwrap_or(u64::MAX);
    let target = wanted.min(maximum.unwrap_or(u64::MAX));
    if current >= target {
        return current;
    }
    let raised = Rlimit {
        current: Some(target),
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => target,
        Err(error) => {
            tracing::warn!(%error, current, target, "raising the limit of open files failed");
            current
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_what_the_limit_leaves() {
        assert_eq!(fitting(1024, 150).unwrap(), 874);
        assert_eq!(fitting(1 << 40, 150).unwrap(), WANTED_CONNECTIONS);
        assert_eq!(fitting(214, 150).unwrap(), FEWEST_CONNECTIONS);
        let error = fitting(213, 150).unwrap_err().to_string();
        assert!(error.contains("is 213, and at least 214"), "{error}");
    }

    #[test]
    fn the_soft_limit_is_raised_as_far_as_needed() {
        // Other tests of this process may raise it too.
        let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        let wanted = 2000.min(hard);
        assert!(raise(wanted) >= wanted);
        assert!(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) >= wanted);
    }
}
