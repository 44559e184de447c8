//! `demo --serve`: a buffer's life, over and over, told to whoever asks.

use crate::args::{DemoArguments, default_socket};
use crate::document::SCHEMA;
use crate::document::buffers::{BufferDocument, BuffersDocument};
use crate::document::demo::ServeDocument;
use crate::exit::{Exit, Failure};
use crate::output;
use peerdma::addr::Bytes;
use peerdma::buffer::shared::Buffer;
use peerdma_emu::platform::Platform;
use peerdma_emu::scenario::{BufferLife, Cast, buffer_life};
use peerdma_linux::control::Control;
use peerdma_linux::interrupt::Interrupts;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// What goes through the buffer in one round.
const ROUND: (Bytes, u64) = (Bytes::new(64 << 10), 96);
/// Steps of the machine between two looks for those who ask, and how long it rests then: there is
/// something to be seen, and the processor has other work.
const STEPS: u64 = 16;
const REST: Duration = Duration::from_millis(1);

pub(super) fn run(arguments: &DemoArguments, at: Option<&Path>, platform: &Platform) -> Result<Exit, Failure> {
    let cast = Cast::of(platform).map_err(|error| Failure::usage(error.to_string()))?;
    // Before there is a socket that would be left behind.
    let interrupts = Interrupts::watch();
    let path = at.map_or_else(default_socket, Path::to_path_buf);
    let control = Control::bind(&path).map_err(|error| Failure::device("cannot serve", error))?;
    let end = arguments.lasts.map(|lasts| Instant::now() + lasts);
    let over = || interrupts.as_ref().is_some_and(Interrupts::came) || end.is_some_and(|end| Instant::now() >= end);
    let mut document = ServeDocument::new(&path, &arguments.platform);
    let words = |text: &str| -> Result<(), Failure> {
        match arguments.output.json {
            true => Ok(()),
            false => {
                let mut out = anstream::stdout().lock();
                Ok(writeln!(out, "{text}").and_then(|()| out.flush())?)
            }
        }
    };
    let asked = if at.is_some() { format!(" --socket {}", path.display()) } else { String::new() };
    words(&format!(
        "{} runs; peerdma buffers{asked} shows what its buffer is at. Ctrl-C ends it.",
        arguments.platform
    ))?;
    while !over() {
        let running = format!("{}, round {}", arguments.platform, document.rounds + 1);
        let mut steps = 0;
        let mut watch = |buffer: &Buffer| {
            steps += 1;
            if steps % STEPS != 0 {
                return ControlFlow::Continue(());
            }
            thread::sleep(REST);
            // Who cannot be answered asks again.
            let _ = control.answer(|| described(&running, buffer));
            if over() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let seed = arguments.seed.wrapping_add(document.rounds);
        let life = buffer_life(platform, &cast, ROUND, seed, &mut watch)
            .map_err(|error| Failure::device("the buffer's life stopped", error))?;
        document.add(&life);
        words(&line(document.rounds, &life))?;
        if !life.is_good() {
            let what = format!("bytes were lost in round {}, seed {seed}", document.rounds);
            return Err(Failure::Device { what, source: None });
        }
    }
    let printed = if arguments.output.json { output::json(&document) } else { Ok(()) };
    output::concluded(Exit::Done, printed)
}

fn described(running: &str, buffer: &Buffer) -> Vec<u8> {
    let document = BuffersDocument {
        schema: SCHEMA,
        running: running.to_string(),
        pid: std::process::id(),
        buffers: vec![BufferDocument::new(&buffer.report())],
    };
    // Names and numbers; there is nothing in it that JSON cannot say.
    serde_json::to_vec(&document).unwrap_or_default()
}

fn line(round: u64, life: &BufferLife) -> String {
    let again: u64 = life.deeds.iter().map(|deed| deed.again).sum();
    let verified = if life.is_good() { "nothing lost" } else { "NOT as sent" };
    let deeds = life.deeds.len();
    format!(
        "round {round}: {} batches of {} sent, {deeds} disturbances, {again} read again, {verified}",
        life.sent, life.batch
    )
}
