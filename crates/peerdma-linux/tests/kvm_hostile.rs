//! A guest that does its worst at the edges of a slot, on the machine that tests run on, where that has virtualisation.
//!
//! The monitor is told by what the library documents, whatever the guest does, and goes on; nothing but the slot's own page
//! is written to. The slot lies in the middle of three pages of one file, between two holes.

use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{Bytes, GuestPhys};
use peerdma::buffer::Enforcement;
use peerdma::buffer::life::{Answers, Disturbance};
use peerdma::buffer::shared::{Buffer, Part};
use peerdma::buffer::terms::{Methods, Moves, Offer, Place, Stays};
use peerdma::chunk::{Chunk, Chunks};
use peerdma::dma::{Owner, OwnerId, Owners, Peers, Source};
use peerdma_linux::kvm::{
    BufferSlot, CpuFile, Exit, Kvm, MissedAccess, NotFinished, NotRestored, Registers, RunError, Slot, SlotMemory,
    Vcpu, Vm,
};
use peerdma_linux::memory::{Backing, Pages};
use std::error::Error;
use std::io::Write;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

const PAGE: u64 = 0x1000;
const CODE: u64 = 0x1000;
const AT: u64 = 0x1000_0000;
const LONG: Duration = Duration::from_secs(60);
/// How long a test may take: a guest that does not come out is a failure, and no silence.
const AT_MOST: Duration = Duration::from_secs(300);
/// How many exits of one instruction are looked at: a string instruction has one for each unit that finds a hole.
const EXITS: usize = 80;
/// What stands in the neighbours' pages.
const NEIGHBOURS: u8 = 0xa5;
/// What stands in the slot's page: `nop`, for a guest that executes from it.
const NOP: u8 = 0x90;

/// Instructions of 32-bit code at `ebx`, `esi`, `edi` or `esp`, which all point at the same place; `ecx` is 32.
const INSTRUCTIONS: &[(&str, &[u8])] = &[
    ("mov [ebx], al", &[0x88, 0x03]),
    ("mov [ebx], ax", &[0x66, 0x89, 0x03]),
    ("mov [ebx], eax", &[0x89, 0x03]),
    ("mov al, [ebx]", &[0x8a, 0x03]),
    ("mov ax, [ebx]", &[0x66, 0x8b, 0x03]),
    ("mov eax, [ebx]", &[0x8b, 0x03]),
    ("xchg [ebx], eax", &[0x87, 0x03]),
    ("lock inc dword [ebx]", &[0xf0, 0xff, 0x03]),
    ("lock xadd [ebx], eax", &[0xf0, 0x0f, 0xc1, 0x03]),
    ("lock cmpxchg [ebx], ecx", &[0xf0, 0x0f, 0xb1, 0x0b]),
    ("lock cmpxchg8b [ebx]", &[0xf0, 0x0f, 0xc7, 0x0b]),
    ("rep movsb onto itself", &[0xf3, 0xa4]),
    ("rep movsd onto itself", &[0xf3, 0xa5]),
    ("rep stosb", &[0xf3, 0xaa]),
    ("rep stosd", &[0xf3, 0xab]),
    ("std; rep stosd", &[0xfd, 0xf3, 0xab]),
    ("rep lodsd", &[0xf3, 0xad]),
    ("repe cmpsd", &[0xf3, 0xa7]),
    ("rep outsb", &[0xf3, 0x6e]),
    ("push eax", &[0x50]),
    ("pusha", &[0x60]),
    ("popa", &[0x61]),
    ("movups [ebx], xmm0", &[0x0f, 0x11, 0x03]),
    ("movups xmm0, [ebx]", &[0x0f, 0x10, 0x03]),
    ("fxsave [ebx]", &[0x0f, 0xae, 0x03]),
    ("fld tbyte [ebx]", &[0xdb, 0x2b]),
    ("call [ebx]", &[0xff, 0x13]),
    ("jmp ebx", &[0xff, 0xe3]),
    ("clflush [ebx]", &[0x0f, 0xae, 0x3b]),
    ("an instruction that is none", &[0x0f, 0x0b]),
];

/// `out 0x10, eax; hlt`
const SAYS: &[u8] = &[0xe7, 0x10, 0xf4];

/// Where they are aimed: around both edges, and far into both holes.
const PLACES: [u64; 14] = [
    AT - PAGE,
    AT - 64,
    AT - 7,
    AT - 3,
    AT - 1,
    AT,
    AT + 1,
    AT + 0x7fd,
    AT + PAGE - 9,
    AT + PAGE - 4,
    AT + PAGE - 3,
    AT + PAGE - 1,
    AT + PAGE,
    u32::MAX as u64 - 1,
];

/// Fails, rather than to hang, unless it ends.
fn ends(what: fn() -> Result<(), Box<dyn Error>>) -> Result<(), Box<dyn Error>> {
    let (sender, ended) = mpsc::channel();
    let running = thread::spawn(move || sender.send(what().map_err(|error| error.to_string())).is_ok());
    match ended.recv_timeout(AT_MOST) {
        Ok(outcome) => Ok(outcome?),
        Err(mpsc::RecvTimeoutError::Timeout) => Err("the guest does not come out".into()),
        Err(mpsc::RecvTimeoutError::Disconnected) => match running.join() {
            Err(cause) => std::panic::resume_unwind(cause),
            Ok(_) => Err("it ended without a word".into()),
        },
    }
}

/// A machine, and a slot over the middle of three pages that follows a buffer.
struct Scene {
    // Fields are dropped in this order.
    vcpu: Vcpu,
    slot: BufferSlot,
    _code: Slot,
    code: Arc<Pages>,
    buffer: Buffer,
    ram: Pages,
    _vm: Vm,
}

/// None, with a word, where there is no virtualisation.
fn scene() -> Result<Option<Scene>, Box<dyn Error>> {
    let kvm = match Kvm::open() {
        Ok(kvm) => kvm,
        Err(error) => {
            writeln!(std::io::stderr(), "SKIPPED kvm: {error}")?;
            return Ok(None);
        }
    };
    let vm = kvm.create_vm()?;
    let page = Bytes::new(PAGE);
    let ram = Pages::backed(Backing::Memfd, Bytes::new(3 * PAGE))?;
    let file = ram.file().ok_or("pages of a memfd have a file")?.try_clone_to_owned()?;
    let owner = Owner::Memfd(OwnerId::new(1));
    let middle = Chunk::new(owner, page, page, MemAttrs::empty()).ok_or("a page is a range")?;
    let stays = Stays { moves: Moves::AtWill, revoked: true };
    let offer = Offer::new(Chunks::collect_from([middle])?, stays, Place::Ram)?.permitting(Methods::CPU);
    let buffer = Buffer::new("frames", offer, Answers::YES);
    let mut files = Owners::new();
    let file = CpuFile::of_file(Arc::new(file));
    files.add(owner, Bytes::ZERO, Bytes::new(3 * PAGE), Source::File { file, offset: Bytes::ZERO });
    let who = ("guest", Prot::ReadWrite, Enforcement::Kernel);
    let slot = vm.follow(GuestPhys::new(AT), &buffer, who, &Peers::none(), files)?;
    slot.restore(LONG)?;
    let code = Arc::new(Pages::zeroed(page)?);
    let memory = SlotMemory::of_pages(&code);
    let placed = vm.add(GuestPhys::new(CODE), &memory, Part::new(Bytes::ZERO, page), Prot::ReadWrite)?;
    let vcpu = kvm.create_vcpu(&vm, 0)?;
    let scene = Scene { vcpu, slot, _code: placed, code, buffer, ram, _vm: vm };
    scene.fill()?;
    Ok(Some(scene))
}

impl Scene {
    fn fill(&self) -> Result<(), Box<dyn Error>> {
        self.ram.write(Bytes::ZERO, &[NEIGHBOURS; 3 * PAGE as usize])?;
        Ok(self.ram.write(Bytes::new(PAGE), &[NOP; PAGE as usize])?)
    }

    /// The three pages.
    fn bytes(&self) -> Result<Vec<u8>, Box<dyn Error>> {
        let mut bytes = vec![0; 3 * PAGE as usize];
        self.ram.read(Bytes::ZERO, &mut bytes)?;
        Ok(bytes)
    }

    fn neighbours_are_as_they_were(&self, words: &str) -> Result<(), Box<dyn Error>> {
        let bytes = self.bytes()?;
        let (before, after) = (&bytes[..PAGE as usize], &bytes[2 * PAGE as usize..]);
        assert!(before.iter().chain(after).all(|byte| *byte == NEIGHBOURS), "{words}: a neighbour's byte has changed");
        Ok(())
    }

    /// Begins an instruction aimed at a place.
    fn begin(&mut self, instruction: &[u8], at: u64) -> Result<(), Box<dyn Error>> {
        self.code.write(Bytes::ZERO, &[instruction, SAYS].concat())?;
        self.vcpu.start_flat(GuestPhys::new(CODE))?;
        let registers = Registers { rax: AT + 8, rbx: at, rcx: 32, rdx: 0x11, rsi: at, rdi: at, rsp: at, rip: CODE };
        Ok(self.vcpu.set_registers(registers)?)
    }

    /// Runs until the guest has ended what it was at, or is held up. What it met.
    fn runs(&mut self, words: &str) -> Result<Vec<Exit>, Box<dyn Error>> {
        let mut met = Vec::new();
        for _ in 0..EXITS {
            let exit = match self.vcpu.run() {
                Ok(exit) => exit,
                // What KVM cannot take apart, as code in a hole: documented, and the end of that guest.
                Err(RunError::Internal { .. } | RunError::NotEntered { .. }) => return Ok(met),
                Err(error) => return Err(format!("{words}: {error}").into()),
            };
            met.push(exit.clone());
            match exit {
                Exit::Out { port: 0x10, .. } | Exit::Halted | Exit::ShutDown | Exit::Revoked { .. } => return Ok(met),
                Exit::Load { len, .. } | Exit::In { len, .. } => self.vcpu.answer(&vec![0; len])?,
                Exit::Missed { access: MissedAccess::Load { len, .. }, .. } => self.vcpu.answer(&vec![0; len])?,
                Exit::Missed { .. } | Exit::Store { .. } | Exit::Out { .. } | Exit::Interrupted => {}
                other => return Err(format!("{words}: {other:?}").into()),
            }
        }
        self.gives_up(words)?;
        Ok(met)
    }

    /// Has KVM finish what it carries out itself, so that another instruction can begin.
    fn gives_up(&mut self, words: &str) -> Result<(), Box<dyn Error>> {
        for _ in 0..EXITS {
            self.vcpu.stop_next();
            match self.vcpu.run() {
                Ok(Exit::Load { len, .. } | Exit::In { len, .. }) => self.vcpu.answer(&vec![0; len])?,
                Ok(Exit::Missed { access: MissedAccess::Load { len, .. }, .. }) => self.vcpu.answer(&vec![0; len])?,
                Ok(Exit::Interrupted) | Err(_) => return Ok(()),
                Ok(_) => {}
            }
        }
        Err(format!("{words}: it does not come to rest").into())
    }

    /// Every instruction at every place.
    fn everything(
        &mut self,
        when: &str,
        mut look: impl FnMut(&Self, &str, &[Exit]) -> Result<(), Box<dyn Error>>,
    ) -> Result<(), Box<dyn Error>> {
        for (name, instruction) in INSTRUCTIONS {
            for at in PLACES {
                let words = format!("{name} at {at:#x}, {when}");
                self.begin(instruction, at)?;
                let met = self.runs(&words)?;
                look(self, &words, &met)?;
                self.neighbours_are_as_they_were(&words)?;
            }
        }
        Ok(())
    }
}

#[test]
fn whatever_a_guest_does_at_the_edges_of_a_slot_ends_in_documented_exits_and_in_its_own_page()
-> Result<(), Box<dyn Error>> {
    ends(edges)
}

fn edges() -> Result<(), Box<dyn Error>> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    scene.everything("there", |scene, words, met| {
        let is_away = met.iter().any(|exit| matches!(exit, Exit::Revoked { .. } | Exit::Missed { .. }));
        assert!(!is_away, "{words}: nothing was taken away: {met:?}");
        // For the next, and for a guest that runs what it wrote.
        scene.fill()
    })?;
    // It is in order still.
    scene.begin(&[0x89, 0x03], AT + 16)?;
    assert_eq!(scene.runs("after all that")?.len(), 1);
    assert_eq!(scene.bytes()?[PAGE as usize + 16..][..4], (AT as u32 + 8).to_le_bytes());
    Ok(())
}

#[test]
fn whatever_a_guest_does_to_a_revoked_slot_changes_not_a_byte() -> Result<(), Box<dyn Error>> {
    ends(revoked)
}

fn revoked() -> Result<(), Box<dyn Error>> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    let buffer = scene.buffer.clone();
    let reset = buffer.begin(Disturbance::Reset)?.wait(LONG)?;
    let before = scene.bytes()?;
    let mut away = 0;
    scene.everything("revoked", |scene, words, met| {
        away += usize::from(met.iter().any(|exit| matches!(exit, Exit::Revoked { .. } | Exit::Missed { .. })));
        assert!(scene.bytes()? == before, "{words}: a byte has changed");
        assert!(matches!(scene.slot.restore(Duration::ZERO), Err(NotRestored::OutOfReach { .. })), "{words}");
        Ok(())
    })?;
    assert!(away > INSTRUCTIONS.len(), "it met memory that is away {away} times");
    reset.done();
    scene.slot.restore(LONG)?;
    scene.begin(&[0x89, 0x03], AT + 16)?;
    assert_eq!(scene.runs("after it came back")?.len(), 1);
    assert_eq!(scene.bytes()?[PAGE as usize + 16..][..4], (AT as u32 + 8).to_le_bytes());

    scene.fill()?;
    let before = scene.bytes()?;
    buffer.begin(Disturbance::Close)?.wait(LONG)?.done();
    scene.everything("gone", |scene, words, _| {
        assert!(scene.bytes()? == before, "{words}: a byte has changed");
        assert_eq!(scene.slot.restore(Duration::ZERO), Err(NotRestored::Gone), "{words}");
        Ok(())
    })
}

/// Stores over both edges without a pause, and the monitor gives back whatever it can.
#[test]
fn a_guest_that_hammers_a_slot_that_comes_and_goes_is_stopped_each_time_and_lands_nowhere_else()
-> Result<(), Box<dyn Error>> {
    ends(hammer)
}

fn hammer() -> Result<(), Box<dyn Error>> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    // mov edi, ebx; mov ecx, edx; rep stosd; jmp to the beginning
    let hammers = [0x89, 0xdf, 0x89, 0xd1, 0xf3, 0xab, 0xeb, 0xf8];
    scene.begin(&hammers, AT - 6)?;
    let registers = Registers { rax: 0x1122_3344, rbx: AT - 6, rdx: 0x403, rip: CODE, ..Registers::default() };
    scene.vcpu.set_registers(registers)?;
    let Scene { vcpu, slot, buffer, .. } = &mut scene;
    let slot = &*slot;
    thread::scope(|scope| -> Result<(), Box<dyn Error>> {
        let hammered = scope.spawn(move || hammered(vcpu, slot).map_err(|error| error.to_string()));
        for round in 0..100 {
            let what = if round % 2 == 0 { Disturbance::Reset } else { Disturbance::FunctionReset };
            buffer.begin(what)?.wait(LONG)?.done();
        }
        buffer.begin(Disturbance::Close)?.wait(LONG)?.done();
        let ended = hammered.join().map_err(|_| "the guest's thread panicked")?;
        Ok(ended?)
    })?;
    scene.neighbours_are_as_they_were("after a hundred rounds")
}

/// Runs the guest until its memory is gone.
fn hammered(vcpu: &mut Vcpu, slot: &BufferSlot) -> Result<(), Box<dyn Error>> {
    loop {
        match vcpu.run()? {
            Exit::Revoked { .. } => match slot.restore(LONG) {
                Ok(()) => {}
                Err(NotRestored::Gone) => return Ok(()),
                Err(error) => return Err(error.into()),
            },
            Exit::Missed { access, .. } => match slot.finish(vcpu, &access, LONG) {
                // Over an edge: what is beyond it is a hole's.
                Ok(()) | Err(NotFinished::Elsewhere { .. }) => {}
                Err(NotFinished::NotRestored(NotRestored::Gone)) => return Ok(()),
                Err(error) => return Err(error.into()),
            },
            Exit::Store { .. } | Exit::Interrupted => {}
            other => return Err(format!("{other:?}").into()),
        }
    }
}
