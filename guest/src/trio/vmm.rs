//! The process with the virtual machine.
//!
//! For each line `attach` that it is told it attaches, and shows the memory to its guest until the memory is gone. It
//! says `runs` when its guest does, `stopped` when the guest met memory that was taken away, and `gone` when the memory is and
//! nothing of it is held any more. The guest is one and the same all along: the store that it was stopped in is the first
//! that it makes in the next memory.

use super::LONG;
use super::child::say;
use crate::checks::{Inner, Stop, told};
use peerdma::access::Prot;
use peerdma::addr::{Bytes, GuestPhys};
use peerdma::buffer::wire::Declare;
use peerdma::buffer::{Enforcement, Lifetime};
use peerdma::dma::{Owner, OwnerId, Owners, Peers, Source};
use peerdma_linux::kvm::{BufferSlot, Exit, Kvm, NotRestored, Vm};
use peerdma_linux::share::{Importer, Relay, Relayed};
use std::path::Path;
use std::thread;
use std::time::Instant;

/// Where the guest sees the memory.
const MEMORY: GuestPhys = GuestPhys::new(0x1000_0000);
const BAR: Owner = Owner::Device(OwnerId::new(1));

pub(super) fn run(socket: &Path) -> Result<(), Stop> {
    let kvm = Kvm::open()?;
    let vm = kvm.create_vm()?;
    let mut inner = Inner::new(&kvm, &vm)?;
    inner.race(MEMORY, 1)?;
    let mut line = String::new();
    // Who started it has ended, or wants it to, at the end of the input.
    while std::io::stdin().read_line(&mut line)? > 0 {
        attach(socket, &vm, &mut inner)?;
        line.clear();
        say("gone");
    }
    Ok(())
}

fn attach(socket: &Path, vm: &Vm, inner: &mut Inner) -> Result<(), Stop> {
    let mut declare = Declare::of_process("vmm", Prot::ReadWrite);
    (declare.takes, declare.enforcement) = (Lifetime::Revocable, Enforcement::Cooperative);
    let importer = Importer::attach(socket, declare, Instant::now() + LONG)?;
    let mut relay = Relay::new(importer, BAR)?;
    let mut files = Owners::new();
    let size = relay.importer().terms().size;
    files.add(BAR, Bytes::ZERO, size, Source::File { file: relay.cpu_file()?, offset: Bytes::ZERO });
    // The kernel takes it from the guest; nothing else of this process maps it.
    let who = ("inner guest", Prot::ReadWrite, Enforcement::Kernel);
    let slot = vm.follow(MEMORY, relay.buffer(), who, &Peers::none(), files)?;
    thread::scope(|scope| {
        let guest = scope.spawn(|| runs(inner, &slot));
        let relayed = loop {
            match relay.serve(Instant::now() + LONG) {
                Ok(Some(Relayed::Gone)) => break Ok(()),
                Ok(_) => {}
                Err(ended) => break Err(Stop::from(ended)),
            }
        };
        match guest.join() {
            Ok(ran) => ran.and(relayed),
            Err(_) => Err(Stop::broken("the guest's thread panicked")),
        }
    })
}

/// Runs the guest until its memory is gone, and restores it when the guest is stopped.
fn runs(inner: &mut Inner, slot: &BufferSlot) -> Result<(), Stop> {
    loop {
        match slot.restore(LONG) {
            Ok(()) => {}
            Err(NotRestored::Gone) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        say("runs");
        loop {
            let exit = inner.vcpu.run()?;
            match exit {
                Exit::Revoked { .. } => break,
                // A signal came, as when this process was stopped and goes on.
                Exit::Interrupted => {}
                ref said if told(said).is_some() => {}
                other => return Err(Stop::broken(format!("the guest left with {other:?}"))),
            }
        }
        say("stopped");
    }
}
