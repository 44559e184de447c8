//! Everything is run once, and what was seen is kept.

use super::typed;
use crate::args::{Command, DemoArguments, MapArguments};
use crate::commands::emulated::{Pace, memcpy};
use crate::exit::Failure;
use crate::input::Loaded;
use crate::select;
use peerdma::addr::Bytes;
use peerdma::route::{Judge, PairVerdict, Target, Verdict};
use peerdma::topology::FunctionId;
use peerdma_emu::platform::Platform;
use peerdma_emu::scenario::{
    self, BufferLife, Cast, Doorbell, ForcedRoute, Leg, Overtaken, Pipeline, ScenarioError, TwoProcesses, WrongKind,
};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// How much each device moves to the next.
const PIPELINE: Bytes = Bytes::new(16 << 20);
/// How long a batch is that goes through the buffer whose life is shown, and how many there are.
const BATCHES: (Bytes, u64) = (Bytes::new(256 << 10), 64);
/// How often a doorbell races against its payload.
const RACES: u64 = 16;

/// What was seen.
pub(super) struct Findings<'a> {
    pub(super) arguments: &'a DemoArguments,
    pub(super) loaded: Loaded,
    pub(super) cast: Cast,
    pub(super) pipeline: Pipeline,
    pub(super) doorbell: Doorbell,
    pub(super) wrong_kind: WrongKind,
    pub(super) forced: ForcedRoute,
    pub(super) overtaken: Overtaken,
    pub(super) processes: TwoProcesses,
    pub(super) life: BufferLife,
    /// What the processor copies, as much as each transfer moves.
    pub(super) memcpy: Pace,
    pub(super) took: Duration,
}

impl<'a> Findings<'a> {
    pub(super) fn collect(arguments: &'a DemoArguments, loaded: Loaded, platform: &Platform) -> Result<Self, Failure> {
        let begun = Instant::now();
        let (seed, happening) = (arguments.seed, arguments.show_unsafe);
        let cast = Cast::of(platform).map_err(|error| Failure::usage(error.to_string()))?;
        let story = |what: &'static str| move |error: ScenarioError| Failure::device(what, error);
        let found = Self {
            pipeline: scenario::pipeline(platform, &cast, PIPELINE, seed).map_err(story("the pipeline stopped"))?,
            doorbell: scenario::doorbell(platform, &cast, seed).map_err(story("the doorbell was not rung"))?,
            wrong_kind: scenario::wrong_kind(platform, &cast, seed, happening)
                .map_err(story("the write to a peer stopped"))?,
            forced: scenario::forced_route(seed, happening).map_err(story("the forced route stopped"))?,
            overtaken: scenario::overtaken(platform, &cast, seed, RACES).map_err(story("the race stopped"))?,
            processes: scenario::two_processes(seed).map_err(story("the accelerator stopped"))?,
            life: scenario::buffer_life(platform, &cast, BATCHES, seed, &mut |_| ControlFlow::Continue(()))
                .map_err(story("the buffer's life stopped"))?,
            memcpy: memcpy(PIPELINE),
            took: begun.elapsed(),
            arguments,
            loaded,
            cast,
        };
        Ok(Self { took: begun.elapsed(), ..found })
    }

    /// What should have been seen and was not.
    pub(super) fn missing(&self) -> Vec<&'static str> {
        let said = [
            (self.pipeline.verified(), "bytes of the pipeline"),
            (self.doorbell.heard == [true, true], "a doorbell"),
            (self.wrong_kind.arrived, "a write to the address that the engine gave"),
            (self.forced.refused.is_some(), "the refusal of a route that loses bytes"),
            (self.overtaken.with == 0, "the order of payload and doorbell"),
            (self.processes.kept_apart(), "the wall between two processes"),
            (self.life.arrived, "batches that went through the buffer"),
            (self.life.left_alone, "memory that the buffer had left"),
        ];
        said.into_iter().filter(|(so, _)| !so).map(|(_, what)| what).collect()
    }

    pub(super) fn function(&self, name: &str) -> Result<FunctionId, Failure> {
        select::function(&self.loaded.topology, name)
    }

    /// Functions of the matrix.
    pub(super) fn functions(&self) -> Vec<FunctionId> {
        let functions = self.loaded.topology.functions();
        functions.filter(|(_, function)| select::is_worth_pairing(function)).map(|(id, _)| id).collect()
    }

    /// A pair that is refused: of the first GPU where there is one, else of anybody.
    pub(super) fn refused(&self, judge: &Judge<'_>) -> Result<Option<PairVerdict>, Failure> {
        let (functions, gpu) = (self.functions(), self.function(&self.cast.gpus[0])?);
        let initiators = std::iter::once(gpu).chain(functions.iter().copied());
        let mut pairs = initiators.flat_map(|from| functions.iter().map(move |&to| (from, to)));
        Ok(pairs.find_map(|(from, to)| {
            let pair = judge.judge(from, &Target::largest_bar(&self.loaded.topology, to));
            (from != to && pair.verdict == Verdict::Refused).then_some(pair)
        }))
    }

    /// The list of the mapping, as `peerdma map` takes it.
    pub(super) fn map_words(&self) -> Result<Vec<String>, Failure> {
        let ([near, far], nic) = (&self.cast.gpus, &self.cast.nics[0]);
        let vram = |name: &str| -> Result<u8, Failure> {
            let target = Target::largest_bar(&self.loaded.topology, self.function(name)?);
            target.bar().ok_or_else(|| Failure::usage(format!("{name} shows no memory")))
        };
        let fixed = ["map", "--platform", &self.arguments.platform, "--initiator", nic].map(str::to_string);
        let chunks = [
            "ram:0x100000000+2M".to_string(),
            format!("{near}/bar{}+0,64M", vram(near)?),
            format!("{far}/bar{}+64M,4M:ro", vram(far)?),
        ];
        Ok(fixed.into_iter().chain(chunks).collect())
    }

    pub(super) fn map(&self) -> Result<MapArguments, Failure> {
        let words = self.map_words()?;
        match typed(&words.iter().map(String::as_str).collect::<Vec<_>>())? {
            Command::Map(map) => Ok(map),
            _ => Err(Failure::usage("map is no command")),
        }
    }

    /// The verdict of a leg's pair; `None` where the memory is the machine's.
    pub(super) fn route(&self, judge: &Judge<'_>, leg: &Leg) -> Result<Option<Verdict>, Failure> {
        let Some(target) = &leg.target else { return Ok(None) };
        let (from, to) = (self.function(&leg.initiator)?, self.function(target)?);
        let target = Target::largest_bar(&self.loaded.topology, to);
        Ok(Some(judge.judge(from, &target).verdict))
    }

    pub(super) fn pace(leg: &Leg) -> Pace {
        Pace { bytes: leg.len, took: leg.took }
    }
}
