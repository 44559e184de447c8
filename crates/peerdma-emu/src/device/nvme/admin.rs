//! Admin commands (NVMe Base 2.0 §5).

use super::command::{COMMAND, COMPLETION, Command};
use super::identify::{self, Identity};
use super::io::LONGEST;
use super::queue::{Completion, Queues, Submission};
use super::reach::Reach;
use super::registers::{Config, MOST_ENTRIES};
use super::status::Status;
use super::{Nvme, data};
use peerdma::addr::Bytes;

pub(super) const DELETE_SUBMISSION: u8 = 0x00;
pub(super) const CREATE_SUBMISSION: u8 = 0x01;
pub(super) const GET_LOG_PAGE: u8 = 0x02;
pub(super) const DELETE_COMPLETION: u8 = 0x04;
pub(super) const CREATE_COMPLETION: u8 = 0x05;
pub(super) const IDENTIFY: u8 = 0x06;
pub(super) const ABORT: u8 = 0x08;
pub(super) const SET_FEATURES: u8 = 0x09;
pub(super) const GET_FEATURES: u8 = 0x0a;
pub(super) const EVENT_REQUEST: u8 = 0x0c;

/// Feature: Number of Queues.
pub(super) const NUMBER_OF_QUEUES: u8 = 0x07;

/// What an admin command came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// Completed, with dword 0 of the completion.
    Now(u32),
    /// To be completed when there is an event.
    Later,
}

/// Values that the host set, by feature.
#[derive(Clone, Debug, Default)]
pub(super) struct Features([u32; 0x0c]);

impl Features {
    /// Those that are kept: arbitration, power, temperature threshold, error recovery, queues,
    /// interrupt coalescing, write atomicity, events.
    const KEPT: [u8; 8] = [0x01, 0x02, 0x04, 0x05, NUMBER_OF_QUEUES, 0x08, 0x0a, 0x0b];

    fn place(&mut self, feature: u8) -> Result<&mut u32, Status> {
        let kept = Self::KEPT.contains(&feature);
        self.0.get_mut(usize::from(feature)).filter(|_| kept).ok_or(Status::INVALID_FIELD)
    }
}

impl Nvme {
    /// Does one admin command.
    pub(super) fn admin(&mut self, reach: &mut Reach<'_>, command: &Command) -> Result<Answer, Status> {
        if command.is_fused() {
            return Err(Status::INVALID_FIELD);
        }
        match command.opcode {
            DELETE_SUBMISSION => self.queues.delete_submission(command),
            CREATE_SUBMISSION => self.queues.create_submission(command, self.limits()),
            DELETE_COMPLETION => self.queues.delete_completion(command),
            CREATE_COMPLETION => self.queues.create_completion(command, self.limits()),
            GET_LOG_PAGE => self.log_page(reach, command),
            IDENTIFY => self.identify(reach, command),
            // What was taken from a queue is done at once, so there is never anything to abort:
            // bit 0 of the result says so.
            ABORT => Ok(1),
            SET_FEATURES => self.set_feature(command),
            GET_FEATURES => self.feature(command),
            EVENT_REQUEST => return self.events.request(command.id),
            _ => Err(Status::INVALID_OPCODE),
        }
        .map(Answer::Now)
    }

    fn limits(&self) -> Limits {
        Limits { queues: self.most_queues, page: self.page, config: self.face.config() }
    }

    fn identify(&self, reach: &mut Reach<'_>, command: &Command) -> Result<u32, Status> {
        let one = |bytes: Vec<u8>| if command.namespace == 1 { Ok(bytes) } else { Err(Status::INVALID_NAMESPACE) };
        let bytes = match command.dword(10) & 0xff {
            0x00 => one(self.identity.namespace(&self.media))?,
            0x01 => self.identity.controller(),
            0x02 if command.namespace >= 0xffff_fffe => return Err(Status::INVALID_NAMESPACE),
            0x02 => Identity::namespaces_above(command.namespace),
            0x03 => one(self.identity.names())?,
            _ => return Err(Status::INVALID_FIELD),
        };
        data::answer(reach, command, self.page, &bytes)?;
        Ok(0)
    }

    fn log_page(&mut self, reach: &mut Reach<'_>, command: &Command) -> Result<u32, Status> {
        let (low, high) = (command.dword(10), command.dword(11));
        let page = identify::log_page(low as u8).ok_or(Status::INVALID_LOG_PAGE)?;
        let dwords = u64::from(low >> 16) | u64::from(high & 0xffff) << 16;
        let len = (dwords + 1) * 4;
        let offset = u64::from(command.dword(12)) | u64::from(command.dword(13)) << 32;
        if len > LONGEST || offset % 4 != 0 || offset > page.len() as u64 {
            return Err(Status::INVALID_FIELD);
        }
        // Past the end of a page is what the specification leaves undefined; here zeros.
        let mut bytes = page[offset as usize..].to_vec();
        bytes.resize(len as usize, 0);
        data::answer(reach, command, self.page, &bytes)?;
        let retain = low >> 15 & 1 != 0;
        if !retain {
            self.events.was_read(low as u8);
        }
        Ok(0)
    }

    fn set_feature(&mut self, command: &Command) -> Result<u32, Status> {
        let (feature, value) = (command.dword(10) as u8, command.dword(11));
        let place = self.features.place(feature)?;
        if command.dword(10) >> 31 != 0 {
            return Err(Status::NOT_SAVEABLE);
        }
        if feature != NUMBER_OF_QUEUES {
            *place = value;
            return Ok(0);
        }
        if self.queues.submission.len() > 1 || self.queues.completion.len() > 1 {
            return Err(Status::SEQUENCE_ERROR);
        }
        let asked = [value & 0xffff, value >> 16];
        if asked.contains(&0xffff) {
            return Err(Status::INVALID_FIELD);
        }
        let [submission, completion] = asked.map(|asked| asked.min(u32::from(self.most_queues) - 1));
        *place = submission | completion << 16;
        Ok(*place)
    }

    fn feature(&mut self, command: &Command) -> Result<u32, Status> {
        let feature = command.dword(10) as u8;
        let value = *self.features.place(feature)?;
        let most = u32::from(self.most_queues) - 1;
        let default = if feature == NUMBER_OF_QUEUES { most | most << 16 } else { 0 };
        match command.dword(10) >> 8 & 7 {
            0 if feature == NUMBER_OF_QUEUES && value == 0 => Ok(default),
            0 => Ok(value),
            // Nothing is saved, so the saved value is the default.
            1 | 2 => Ok(default),
            // Changeable, not saveable, for all namespaces.
            3 => Ok(1 << 2),
            _ => Err(Status::INVALID_FIELD),
        }
    }
}

/// What queues may be.
#[derive(Clone, Copy)]
struct Limits {
    queues: u16,
    page: Bytes,
    config: Config,
}

impl Limits {
    /// Checks what both kinds of queue have in common; how many entries are asked for.
    fn check(self, command: &Command, exists: bool, entry: usize) -> Result<u32, Status> {
        let (number, entries) = (command.dword(10) as u16, (command.dword(10) >> 16) + 1);
        if number == 0 || number > self.queues || exists {
            return Err(Status::INVALID_QUEUE_ID);
        }
        if !(2..=MOST_ENTRIES).contains(&entries) || !self.config.entry_lengths() {
            return Err(Status::INVALID_QUEUE_SIZE);
        }
        let contiguous = command.dword(11) & 1 != 0;
        if !contiguous || !Queues::fits(command.prp1(), entries, entry) {
            return Err(Status::INVALID_FIELD);
        }
        if !command.prp1().as_u64().is_multiple_of(self.page.as_u64()) {
            return Err(Status::PRP_OFFSET_INVALID);
        }
        Ok(entries)
    }
}

impl Queues {
    fn create_completion(&mut self, command: &Command, limits: Limits) -> Result<u32, Status> {
        let number = command.dword(10) as u16;
        let entries = limits.check(command, self.completion.contains_key(&number), COMPLETION)?;
        let (interrupts, vector) = (command.dword(11) & 2 != 0, (command.dword(11) >> 16) as u16);
        // As many vectors as queues, admin queue included.
        if interrupts && vector > limits.queues {
            return Err(Status::INVALID_VECTOR);
        }
        let queue = Completion::new(command.prp1(), entries, interrupts.then_some(vector));
        self.completion.insert(number, queue);
        Ok(0)
    }

    fn create_submission(&mut self, command: &Command, limits: Limits) -> Result<u32, Status> {
        let number = command.dword(10) as u16;
        let entries = limits.check(command, self.submission.contains_key(&number), COMMAND)?;
        let completion = (command.dword(11) >> 16) as u16;
        if completion == 0 || completion > limits.queues {
            return Err(Status::INVALID_QUEUE_ID);
        }
        if !self.completion.contains_key(&completion) {
            return Err(Status::COMPLETION_QUEUE_INVALID);
        }
        self.submission.insert(number, Submission::new(command.prp1(), entries, completion));
        Ok(0)
    }

    fn delete_completion(&mut self, command: &Command) -> Result<u32, Status> {
        let number = command.dword(10) as u16;
        if number == 0 || !self.completion.contains_key(&number) {
            return Err(Status::INVALID_QUEUE_ID);
        }
        if self.submission.values().any(|queue| queue.completion == number) {
            return Err(Status::INVALID_QUEUE_DELETION);
        }
        self.completion.remove(&number);
        Ok(0)
    }

    /// Commands that were not taken yet are gone with their queue.
    fn delete_submission(&mut self, command: &Command) -> Result<u32, Status> {
        let number = command.dword(10) as u16;
        if number == 0 || self.submission.remove(&number).is_none() {
            return Err(Status::INVALID_QUEUE_ID);
        }
        Ok(0)
    }
}
