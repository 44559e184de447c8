//! An RDMA adapter connected to itself, with the target's memory registered as a dma-buf.
//!
//! The exporter asks the kernel's rules when the adapter's driver maps the buffer (Linux 7.3 `vfio_pci_dma_buf_map`), so a
//! pair that they refuse is put to it all the same.

use super::trial::{Absent, Stage, Trial, permitted};
use super::{Question, not_asked, observing};
use crate::commands::hardware::Exported;
use crate::exit::chain;
use crate::progress::Steps;
use peerdma::addr::{Bytes, Iova};
use peerdma::route::Permission;
use peerdma_linux::engine::{Engine, Kind};
use peerdma_linux::interrupt::Interrupts;
use peerdma_linux::memory::Pages;
use peerdma_linux::verbs::{Context, Loopback, Region, RegisterError, Verbs};
use peerdma_linux::verified::{self, Staging, Target, VerifyError};
use peerdma_linux::vfio::BarRange;
use std::error::Error;
use std::os::fd::AsFd;
use std::sync::Arc;

const ENGINE: &str = Kind::Adapter.word();

/// Where the adapter sees the buffer: above all addresses of a process, which its other regions have.
const AT: u64 = 1 << 60;

pub(super) fn probe(question: &Question<'_>, trial: &mut Trial) {
    let absent = |why: String| Absent { engine: ENGINE, needs: vec![why] };
    let Some(range) = question.range else {
        trial.absent.push(absent(question.memory_unnamed()));
        return;
    };
    // That the hardware loses it the kernel does not know.
    let lost = question.ways.iter().any(|&way| permitted(question.pair, way) == Permission::Refused);
    if lost && question.by_linux == Permission::Permitted && !question.force {
        trial.rows.extend(question.unmoved(ENGINE, &not_asked(Permission::Refused)));
        return;
    }
    // From here on something may have to be put back; a signal is noticed between two steps.
    let interrupts = Interrupts::watch();
    let ready = || -> Result<Ready, Box<dyn Error>> {
        let context = context(question)?;
        let loopback = Loopback::open(&context, question.from)?;
        let pages = Arc::new(Pages::zeroed(Staging::pages_for(loopback.capacity()))?);
        let staging = loopback.domain().register(Arc::clone(&pages), Loopback::rights())?;
        Ok(Ready { exported: Exported::open(question.to, range)?, loopback, pages, staging })
    };
    let ready = match ready() {
        Ok(ready) => ready,
        Err(error) => {
            trial.absent.push(absent(chain(&*error)));
            return;
        }
    };
    let before = trial.rows.len();
    match ready.register() {
        Err(error) => {
            let why = format!("the registration is refused: {}", chain(&error));
            trial.rows.extend(question.unmoved(ENGINE, &Stage::No(why)));
        }
        Ok(region) => {
            let granted = format!("the adapter registered a dma-buf of {} {range}", question.to);
            let mut steps = Steps::new();
            let verified = ready.verify(region, range, question.seed, &mut observing(interrupts.as_ref(), &mut steps));
            question.verified(ENGINE, granted, verified, trial);
        }
    }
    for row in trial.rows.iter_mut().skip(before) {
        *row = row.clone().against(question.by_linux);
    }
}

/// The adapter of the function, opened.
fn context(question: &Question<'_>) -> Result<Context, Box<dyn Error>> {
    let of_function = |device: &peerdma_linux::verbs::Device| {
        let function = device.sysfs().join("device").canonicalize().ok();
        function.is_some_and(|folder| folder.file_name().is_some_and(|name| *name == *question.from.to_string()))
    };
    let device = Verbs::load()?.devices()?.into_iter().find(of_function);
    let device = device.ok_or_else(|| {
        format!("libibverbs drives no adapter of {}; install the provider for it (ibverbs-providers)", question.from)
    })?;
    Ok(device.open()?)
}

/// Everything that is open, in the order in which it is closed.
struct Ready {
    loopback: Loopback,
    staging: Region,
    pages: Arc<Pages>,
    exported: Exported,
}

impl Ready {
    /// Has the adapter map the target's memory.
    fn register(&self) -> Result<Region, RegisterError> {
        let (whole, fd) = (self.exported.whole(), self.exported.file().as_fd());
        self.loopback.domain().register_dmabuf(fd, Bytes::ZERO, whole.len(), Iova::new(AT), Loopback::rights())
    }

    fn verify(
        self,
        region: Region,
        range: BarRange,
        seed: u64,
        observe: verified::Observer<'_>,
    ) -> Result<verified::Verification, VerifyError> {
        let Self { mut loopback, staging, pages, exported } = self;
        let inside = range.offset().as_u64().saturating_sub(exported.whole().offset().as_u64());
        let seen = region.range().slice(Bytes::new(inside), range.len()).ok_or(verified::CpuAccess::Wraps)?;
        let target = Target::new(exported.memory(), range.offset(), seen)?;
        let ours = Staging::new(&pages, staging.range().start())?;
        loopback.reach(region);
        loopback.reach(staging);
        verified::verify(&mut loopback, &target, &ours, seed, observe)
    }
}
