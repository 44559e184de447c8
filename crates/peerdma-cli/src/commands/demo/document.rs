//! What was seen, as JSON.

use super::findings::Findings;
use crate::commands::map;
use crate::document::demo::{
    BufferLifeDocument, DeedDocument, DemoDocument, DoorbellDocument, ForcedDocument, ForcedRouteDocument,
    JourneyDocument, MistakeDocument, OvertakenDocument, ProcessDocument, ProcessesDocument, TransferDocument,
    WrongKindDocument,
};
use crate::document::{Pair, SCHEMA, Source};
use crate::exit::Failure;
use peerdma::dma::publish::Step;
use peerdma::route::{Judge, Target};
use peerdma_emu::scenario::{BufferLife, Deed, Journey, Landed, Leg, Mistake, Moves, Process};

impl Findings<'_> {
    pub(super) fn document(&self) -> Result<DemoDocument, Failure> {
        let topology = &self.loaded.topology;
        let judge = Judge::new(topology);
        let functions = self.functions();
        let pairs = functions.iter().flat_map(|&from| functions.iter().map(move |&to| (from, to)));
        let matrix = pairs.map(|(from, to)| Pair::new(&judge, &judge.judge(from, &Target::largest_bar(topology, to))));
        let missing = self.missing();
        Ok(DemoDocument {
            schema: SCHEMA,
            source: Source::new(&self.loaded),
            seed: self.arguments.seed,
            verified: missing.is_empty(),
            missing,
            matrix: matrix.collect(),
            refused: self.refused(&judge)?.map(|pair| Pair::new(&judge, &pair)),
            mapping: map::document(&self.map()?)?,
            transfers: self.pipeline.legs.iter().map(|leg| self.transfer(&judge, leg)).collect::<Result<_, _>>()?,
            memcpy_bytes_per_second: self.memcpy.bytes_per_second(),
            doorbell: self.doorbell(),
            wrong_kind: self.wrong_kind(),
            forced_route: self.forced_route(),
            overtaken: self.overtaken(),
            processes: ProcessesDocument {
                accelerator: self.processes.accelerator.clone(),
                processes: self.processes.processes.iter().map(process).collect(),
                page_requests_refused: self.processes.page_requests_refused,
            },
            buffer: life(&self.life),
            seconds: self.took.as_secs_f64(),
        })
    }

    fn transfer(&self, judge: &Judge<'_>, leg: &Leg) -> Result<TransferDocument, Failure> {
        Ok(TransferDocument {
            initiator: leg.initiator.clone(),
            target: leg.target.clone(),
            moves: match leg.moves {
                Moves::Writes => "writes",
                Moves::Reads => "reads",
            },
            route: self.route(judge, leg)?.map_or("memory", |verdict| verdict.word()).to_string(),
            address_kind: leg.address.word(),
            address: hex(leg.address.as_u64()),
            bytes: leg.len.as_u64(),
            verified: leg.verified,
            bytes_per_second: Self::pace(leg).bytes_per_second(),
        })
    }

    fn doorbell(&self) -> DoorbellDocument {
        let bell = &self.doorbell;
        let way =
            |journey: &Journey, heard| JourneyDocument { places: journey.places.clone(), links: journey.links, heard };
        DoorbellDocument {
            sender: bell.sender.clone(),
            bell: bell.bell.clone(),
            by_peer: way(&bell.by_peer, Some(bell.heard[0])),
            interrupt: way(&bell.interrupt, None),
            by_cpu: way(&bell.by_cpu, Some(bell.heard[1])),
        }
    }

    fn wrong_kind(&self) -> WrongKindDocument {
        let kind = &self.wrong_kind;
        WrongKindDocument {
            initiator: kind.initiator.clone(),
            target: kind.target.clone(),
            given_kind: kind.given.word(),
            given: hex(kind.given.as_u64()),
            arrived: kind.arrived,
            happening: self.arguments.show_unsafe.then(|| kind.mistakes.iter().map(mistake).collect()),
        }
    }

    fn forced_route(&self) -> ForcedRouteDocument {
        let route = &self.forced;
        ForcedRouteDocument {
            initiator: route.initiator.clone(),
            target: route.target.clone(),
            refused: route.refused.as_ref().map(ToString::to_string),
            happening: route.forced.map(|forced| ForcedDocument {
                number: hex(forced.number.as_u64()),
                bytes: forced.len.as_u64(),
                reported_done: forced.reported_done,
                right: forced.right,
                ones: forced.ones,
            }),
        }
    }

    fn overtaken(&self) -> OvertakenDocument {
        let race = &self.overtaken;
        OvertakenDocument {
            sender: race.sender.clone(),
            bell: race.bell.clone(),
            advice: race.advice.iter().map(Step::code).collect(),
            runs: race.runs,
            overtaken: race.without,
            first_seed: race.seed,
            overtaken_with_advice: race.with,
        }
    }
}

fn hex(number: u64) -> String {
    format!("{number:#x}")
}

fn mistake(mistake: &Mistake) -> MistakeDocument {
    MistakeDocument {
        initiator: mistake.initiator.clone(),
        what: mistake.what,
        number: hex(mistake.number.as_u64()),
        meant: mistake.meant.clone(),
        overwritten: mistake.overwritten.clone(),
        reported_done: mistake.reported_done,
        arrived: mistake.landed == Landed::Right,
        faults: match mistake.landed {
            Landed::Nowhere { faults } => Some(faults),
            Landed::Elsewhere | Landed::Right => None,
        },
    }
}

fn life(life: &BufferLife) -> BufferLifeDocument {
    BufferLifeDocument {
        drive: life.drive.clone(),
        nics: life.nics.clone(),
        gpus: life.gpus.clone(),
        bytes: life.len.as_u64(),
        batch_bytes: life.batch.as_u64(),
        batches: life.sent,
        disturbances: life.deeds.iter().map(deed).collect(),
        arrived: life.arrived,
        left_alone: life.left_alone,
    }
}

fn deed(deed: &Deed) -> DeedDocument {
    DeedDocument {
        what: deed.what.word(),
        at: deed.at.clone(),
        to: deed.to.clone(),
        held: deed.held.clone(),
        read_again: deed.again,
    }
}

fn process(process: &Process) -> ProcessDocument {
    let [load, store] = process.refused.map(|status| status.map(|status| status.to_string()));
    ProcessDocument {
        pasid: process.pasid.number(),
        list: hex(process.list.as_u64()),
        sum: process.sum,
        expected: process.expected,
        foreign: hex(process.foreign.as_u64()),
        load_refused: load,
        store_refused: store,
        left_alone: process.left_alone,
    }
}
