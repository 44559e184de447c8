//! Where a limit is set, in the words of whoever sets it.

use peerdma::addr::Bytes;

/// One place.
pub(crate) struct Line {
    /// Which program, in one stable word.
    pub(crate) program: &'static str,
    /// The file it goes into, or the command it belongs to.
    pub(crate) place: &'static str,
    /// What to write.
    pub(crate) line: String,
    /// What else to know; empty if nothing.
    pub(crate) note: &'static str,
}

/// Lines that set this limit.
pub(crate) fn lines(limit: Bytes) -> Vec<Line> {
    let bytes = limit.as_u64();
    // limits.conf(5) counts in KiB.
    let kib = bytes.div_ceil(1024);
    let line = |program, place, line, note| Line { program, place, line, note };
    vec![
        line(
            "limits.conf",
            "/etc/security/limits.d/memlock.conf",
            format!("USER - memlock {kib}"),
            "in KiB, for logins through PAM only; log in again",
        ),
        line(
            "systemd",
            "[Service] of the unit (systemctl edit UNIT)",
            format!("LimitMEMLOCK={bytes}"),
            "for a user's own units LimitMEMLOCK= in a drop-in of user@.service",
        ),
        line("docker", "docker run", format!("--ulimit memlock={bytes}:{bytes}"), "podman and nerdctl take the same"),
        line(
            "containerd",
            "[Service] of containerd.service",
            format!("LimitMEMLOCK={bytes}"),
            "Kubernetes has no field for it: containers inherit the runtime's, or are given the capability IPC_LOCK in \
             securityContext",
        ),
        line(
            "cri-o",
            "[crio.runtime] of /etc/crio/crio.conf",
            format!("default_ulimits = [\"memlock={bytes}:{bytes}\"]"),
            "",
        ),
        line(
            "oci",
            "process.rlimits of config.json",
            format!("{{\"type\": \"RLIMIT_MEMLOCK\", \"soft\": {bytes}, \"hard\": {bytes}}}"),
            "",
        ),
    ]
}
