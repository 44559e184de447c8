//! What the tests have in common: two kernels, two programs, and a way to boot them.

use crate::failure::Failure;
use crate::vm::guest::{self, Echo, GuestFile, Job, Outcome, User};
use crate::vm::kernel::Kernel;
use crate::vm::machine::{Iommu, Machine, Memory};
use crate::vm::program::{self, Own};
use crate::vm::topology;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Which of the two kernels a guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// Debian's own: VFIO type1, dma-buf export, kprobes.
    Stock,
    /// Ours: iommufd and the test module too.
    Small,
}

/// Kernels and programs, made once for all tests.
pub(super) struct Laboratory {
    top: PathBuf,
    /// The repository's top folder, for tests that read platform files or write fixtures.
    pub(super) root: PathBuf,
    stock: Kernel,
    small: Kernel,
    programs: Vec<(&'static str, Vec<u8>)>,
    /// What kernels of guests said of not being well since somebody asked.
    unwell: RefCell<Option<String>>,
    /// `peerdma` as a program of this machine: static, so the guest's runs here too.
    pub(super) peerdma: PathBuf,
}

impl Laboratory {
    pub(super) fn new(
        root: &Path,
        top: &Path,
        stock: Kernel,
        small: Kernel,
        built: &[PathBuf],
    ) -> Result<Self, Failure> {
        let names = [Own::Peerdma.name(), Own::Guest.name()];
        let programs: Vec<(&'static str, Vec<u8>)> = names
            .into_iter()
            .zip(built)
            .map(|(name, path)| Ok((name, program::read(path)?)))
            .collect::<Result<_, Failure>>()?;
        Ok(Self {
            top: top.into(),
            root: root.into(),
            stock,
            small,
            programs,
            unwell: RefCell::new(None),
            peerdma: built[0].clone(),
        })
    }

    pub(super) fn kernel(&self, which: Which) -> &Kernel {
        match which {
            Which::Stock => &self.stock,
            Which::Small => &self.small,
        }
    }

    /// What the kernel of a guest that came to its end said of not being well, since this was asked last.
    pub(super) fn take_unwell(&self) -> Option<String> {
        self.unwell.take()
    }

    /// Where guests and what they are made of lie.
    pub(super) fn top(&self) -> &Path {
        &self.top
    }

    /// A folder for what tests hand to `peerdma` on this machine.
    pub(super) fn scratch(&self) -> Result<PathBuf, Failure> {
        let folder = self.top.join("scratch");
        std::fs::create_dir_all(&folder).map_err(|error| Failure::io("create", &folder, &error))?;
        Ok(folder)
    }

    /// Boots a guest with both programs in it and runs one command line.
    pub(super) fn boot(&self, setup: &Setup, argv: &[&str]) -> Result<Outcome, Failure> {
        let mut job = Job::new(argv.iter().map(|&word| word.into()).collect());
        self.boot_job(setup, &mut job)
    }

    /// Boots a guest for a job that brings files or a limit of its own.
    pub(super) fn boot_job(&self, setup: &Setup, job: &mut Job) -> Result<Outcome, Failure> {
        job.user = setup.user;
        job.vfio = setup.vfio.iter().map(|&function| function.into()).collect();
        job.files.extend(self.programs.iter().map(|(name, bytes)| GuestFile {
            path: format!("job/bin/{name}"),
            mode: 0o755,
            bytes: bytes.clone(),
        }));
        let kernel = self.kernel(setup.kernel);
        job.modules.extend(guest::USUAL_MODULES.map(Into::into));
        if let (Some(oracle), true) = (&kernel.oracle, setup.kernel == Which::Small) {
            let bytes = std::fs::read(oracle).map_err(|error| Failure::io("read", oracle, &error))?;
            job.files.push(GuestFile { path: "job/p2p_oracle.ko".into(), mode: 0o644, bytes });
        }
        let outcome = guest::run(&self.top, kernel, &setup.machine()?, job, Echo::Quiet)?;
        if let Some(line) = guest::unwell(&outcome.kernel_log) {
            self.unwell.borrow_mut().get_or_insert_with(|| line.into());
        }
        Ok(outcome)
    }
}

/// One machine and how its job is run.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) kernel: Which,
    pub(super) cpu: String,
    pub(super) iommu: Iommu,
    pub(super) topology: Option<topology::Model>,
    pub(super) cmdline: Vec<String>,
    pub(super) user: User,
    pub(super) vfio: Vec<&'static str>,
    /// Properties of the devices that this guest gives other values.
    pub(super) replace: Vec<(&'static str, String)>,
    /// QEMU's objects beside those of the topology, before its devices.
    pub(super) objects: Vec<String>,
    /// What its memory consists of.
    pub(super) memory: Memory,
}

/// AMD of a family before Zen: Linux asks its whitelist for every host bridge.
pub(super) const BELOW_ZEN: &str = "qemu64";
/// AMD from Zen on: Linux takes every host bridge to forward.
pub(super) const ZEN: &str = "EPYC";

impl Setup {
    /// Root on the named topology, with an Intel IOMMU and a processor below Zen.
    pub(super) fn named(kernel: Which, name: &str) -> Self {
        Self {
            kernel,
            cpu: BELOW_ZEN.into(),
            iommu: Iommu::Intel,
            topology: topology::named(name),
            cmdline: Vec::new(),
            user: User::Root,
            vfio: Vec::new(),
            replace: Vec::new(),
            objects: Vec::new(),
            memory: Memory::Usual,
        }
    }

    /// Root on the machine that somebody else described.
    pub(super) fn planned(kernel: Which, cpu: &str, iommu: Iommu, model: topology::Model, cmdline: &[&str]) -> Self {
        Self {
            kernel,
            cpu: cpu.into(),
            iommu,
            topology: Some(model),
            cmdline: cmdline.iter().map(|&word| word.into()).collect(),
            user: User::Root,
            vfio: Vec::new(),
            replace: Vec::new(),
            objects: Vec::new(),
            memory: Memory::Usual,
        }
    }

    /// Root on a machine without devices, whose memory is what matters.
    pub(super) fn of_memory(memory: Memory, cpu: &str, cmdline: &[&str]) -> Self {
        Self {
            kernel: Which::Stock,
            cpu: cpu.into(),
            iommu: Iommu::None,
            topology: None,
            cmdline: cmdline.iter().map(|&word| word.into()).collect(),
            user: User::Root,
            vfio: Vec::new(),
            replace: Vec::new(),
            objects: Vec::new(),
            memory,
        }
    }

    pub(super) fn zen(mut self) -> Self {
        self.cpu = ZEN.into();
        self
    }

    /// With virtualisation inside the guest, under emulation as all of it.
    pub(super) fn nested(mut self) -> Self {
        self.cpu = format!("{ZEN},svm=on");
        self
    }

    pub(super) fn iommu(mut self, iommu: Iommu) -> Self {
        self.iommu = iommu;
        self
    }

    pub(super) fn user(mut self, user: User) -> Self {
        self.user = user;
        self
    }

    pub(super) fn vfio(mut self, functions: &[&'static str]) -> Self {
        self.vfio = functions.to_vec();
        self
    }

    pub(super) fn machine(&self) -> Result<Machine, Failure> {
        let mut devices = self.topology.as_ref().map(topology::Model::arguments).unwrap_or_default();
        for (from, to) in &self.replace {
            devices.iter_mut().for_each(|device| *device = device.replace(from, to));
        }
        let objects = self.objects.iter().flat_map(|object| ["-object".to_string(), object.clone()]);
        let devices = objects.chain(devices).collect();
        Ok(Machine {
            cpu: self.cpu.clone(),
            iommu: self.iommu,
            devices,
            cmdline: self.cmdline.clone(),
            memory: self.memory,
        })
    }
}

/// Fails with what the guest said unless the job ended with this code.
pub(super) fn expect_exit(outcome: &Outcome, code: u8, doing: &str) -> Result<(), Failure> {
    if outcome.exit == code {
        return Ok(());
    }
    Err(Failure::Found(format!(
        "{doing} ended with {} and should end with {code}; it said:\n{}{}",
        outcome.exit,
        String::from_utf8_lossy(&outcome.stdout),
        String::from_utf8_lossy(&outcome.stderr)
    )))
}

/// Fails unless the job said this.
pub(super) fn expect_words(outcome: &Outcome, words: &[&str], doing: &str) -> Result<(), Failure> {
    let said = format!("{}{}", String::from_utf8_lossy(&outcome.stdout), String::from_utf8_lossy(&outcome.stderr));
    match words.iter().find(|words| !said.contains(**words)) {
        None => Ok(()),
        Some(missing) => Err(Failure::Found(format!("{doing} does not say `{missing}`; it said:\n{said}"))),
    }
}

/// How long a test may take that only boots and prints.
pub(super) const SHORT: Duration = Duration::from_secs(60);
