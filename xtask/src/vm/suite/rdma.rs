//! Two hosts in one guest: network namespaces with a soft-RoCE adapter each, and a program in either.
//!
//! The program is linked dynamically, since libibverbs loads a provider, and comes with its libraries.
//! Adapters are made in their interface's namespace and seen from both, as is usual (`rdma system set netns shared`);
//! packets go by the namespace of the interface (Linux 7.3 `rxe_ns`).

use super::claims::claims;
use super::setup::{Laboratory, Setup};
use super::{Done, Test};
use crate::failure::Failure;
use crate::vm::guest::{GuestFile, Job};
use crate::vm::machine::Memory;
use crate::vm::{program, userland};
use std::fs;

/// How many claims hold at least, on both hosts and of the user.
const FEWEST: usize = 32;

/// The peer of an interface is made with it, under a name of the kernel's.
const SCRIPT: &str = r#"
unshare -n sleep 600 & left=$!
unshare -n sleep 600 & right=$!
for pid in $left $right; do # Until it is in a namespace of its own.
    while [ "$(readlink /proc/$pid/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.1; done
done
ip link add left type veth
ip link set left netns $left
ip link set veth0 netns $right
host() { # PID INTERFACE ADDRESS ADAPTER
    nsenter -t $1 -n sh -c "ip link set lo up; ip addr add $3/24 dev $2; ip link set $2 up"
    nsenter -t $1 -n rdma-guest rdma link $4 $2 || exit 1
}
host $left left 10.7.0.1 soft0
host $right veth0 10.7.0.2 soft1
nsenter -t $left -n rdma-guest rdma alone soft0 > /tmp/alone 2>&1
alone=$?
nsenter -t $right -n rdma-guest rdma serve soft1 10.7.0.2:7471 > /tmp/serve 2>&1 & server=$!
nsenter -t $left -n rdma-guest rdma ask soft0 10.7.0.2:7471 > /tmp/ask 2>&1
asked=$?
wait $server
served=$?
su -s /bin/sh nobody -c 'ulimit -l 256; rdma-guest rdma limits soft0' > /tmp/limits 2>&1
limits=$?
cat /tmp/alone /tmp/serve /tmp/ask /tmp/limits
[ $alone$asked$served$limits = 0000 ]
"#;

pub(super) fn tests() -> Vec<Test> {
    vec![Test::new("rdma", "bytes from one host's pool to another's by soft-RoCE", all)]
}

fn all(laboratory: &Laboratory) -> Result<Done, Failure> {
    let (root, top) = (&laboratory.root, laboratory.top());
    let built = program::build_dynamic(root, top)?;
    let bytes = fs::read(&built).map_err(|error| Failure::io("read", &built, &error))?;
    let mut job = Job::new(["sh", "-c", SCRIPT].map(Into::into).into());
    job.files = userland::rdma(top)?;
    job.files.push(GuestFile { path: "job/bin/rdma-guest".into(), mode: 0o755, bytes });
    job.modules = ["veth", "ib_uverbs", "rdma_rxe"].map(Into::into).into();
    let setup = Setup::of_memory(Memory::Usual, "qemu64", &[]);
    claims(laboratory, &setup, &job, FEWEST).map(|(done, _)| done)
}
