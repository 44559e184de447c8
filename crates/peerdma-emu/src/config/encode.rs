//! From a description to registers.

use super::bars;
use super::description::{AcsDescription, Description, ExpressDescription, Header, PasidDescription};
use super::image::Image;
use super::layout::{acs, ats, bridge, express, header, msi, pasid, power, pri};
use super::space::{AcsPlace, Places, Space};
use peerdma::addr::{AddrRange, BusAddr, Bytes};
use peerdma::pcie::express::PortType;

/// Registers are in granules of this size; the bits below it are not there.
const GRANULE_LOG2: u32 = 20;

impl Space {
    /// Lays out the registers that `description` asks for.
    pub fn new(description: &Description) -> Self {
        let mut image = Image::new(description.express.is_some());
        put_header(&mut image, description);
        let mut at = Places::default();
        if description.power_management {
            let place = image.standard(power::ID, power::LEN);
            // Version 3, no D1, no D2, no events.
            image.put(place, 3 << 16, 0);
            image.put(place + power::CONTROL, power::NO_SOFT_RESET, power::STATE);
            at.power = Some(place);
        }
        if let Some(described) = &description.express {
            at.express = Some(put_express(&mut image, described));
        }
        if description.message_interrupts > 0 {
            at.msi = Some(put_messages(&mut image, description.message_interrupts));
        }
        if description.express.is_some() {
            at.acs = description.acs.as_ref().map(|described| put_acs(&mut image, described));
            at.ats = description.ats.map(|enabled| put_ats(&mut image, enabled));
            at.pri = description.pri.map(|enabled| put_pri(&mut image, enabled, description.pasid.is_some()));
            at.pasid = description.pasid.map(|described| put_pasid(&mut image, described));
        }
        let bars = bars::lay_out(&mut image, description);
        Self::from_image(image, at, bars)
    }
}

fn put_header(image: &mut Image, description: &Description) {
    let Description { id, class, .. } = *description;
    image.put(0, u32::from(id.vendor) | u32::from(id.device) << 16, 0);
    let enables = if description.memory_enabled { header::MEMORY_SPACE } else { 0 }
        | if description.bus_master { header::BUS_MASTER } else { 0 };
    image.put(header::COMMAND, enables, header::COMMAND_WRITABLE);
    image.cleared_by_ones(header::COMMAND, header::STATUS_CLEARED);
    image.put(header::CLASS, class.as_u32() << 8, 0);
    let several = if description.multifunction { header::MULTIFUNCTION } else { 0 };
    image.put(header::TYPE, several, 0);
    // The line is a note from one piece of software to another.
    image.put(header::INTERRUPT_AND_BRIDGE_CONTROL, 0, 0xff);
    image.routes_nothing(header::INTERRUPT_AND_BRIDGE_CONTROL);
    if description.header == Header::Bridge {
        put_bridge(image, description);
    }
}

fn put_bridge(image: &mut Image, description: &Description) {
    image.put(header::TYPE, header::TYPE_BRIDGE, 0);
    let buses = description.buses.map_or(0, |buses| {
        u32::from(buses.primary) | u32::from(buses.secondary) << 8 | u32::from(buses.subordinate) << 16
    });
    image.put(bridge::BUSES, buses, bridge::BUSES_WRITABLE);
    image.cleared_by_ones(bridge::SECONDARY_STATUS, header::STATUS_CLEARED);
    let (base, limit) = window(description.memory_window);
    image.put(bridge::MEMORY, halves(base, limit), bridge::WINDOW_WRITABLE);
    let (base, limit) = window(description.prefetchable_window);
    image.put(bridge::PREFETCHABLE, halves(base, limit) | bridge::WINDOW_64_BIT, bridge::WINDOW_WRITABLE);
    image.put(bridge::PREFETCHABLE_BASE_UPPER, (base >> 32) as u32, !0);
    image.put(bridge::PREFETCHABLE_LIMIT_UPPER, (limit >> 32) as u32, !0);
    image.put(header::INTERRUPT_AND_BRIDGE_CONTROL, 0, bridge::CONTROL_WRITABLE);
}

/// Base and limit; a closed window has its base above its limit (§7.5.1.3.8).
fn window(range: Option<AddrRange<BusAddr>>) -> (u64, u64) {
    const CLOSED: (u64, u64) = (0xffff_ffff_fff0_0000, 0);
    range.map_or(CLOSED, |range| (range.start().as_u64(), range.last().as_u64()))
}

/// Address bits 31:20 of a base and a limit, as the upper bits of two halves.
fn halves(base: u64, limit: u64) -> u32 {
    let half = |address: u64| ((address >> GRANULE_LOG2 & 0xfff) as u32) << 4;
    half(base) | half(limit) << 16
}

fn put_express(image: &mut Image, described: &ExpressDescription) -> u16 {
    let at = image.standard(express::ID, express::LEN);
    image.put(at, express::VERSION | port_type_field(described.port_type) << express::TYPE_SHIFT, 0);
    let supported = payload_field(described.max_payload_supported).max(payload_field(described.max_payload));
    image.put(at + express::CAPABILITIES, express::CAPABILITIES_FIXED | supported, 0);
    let control = payload_field(described.max_payload) << express::PAYLOAD_SHIFT
        | payload_field(described.max_read_request) << express::READ_SHIFT
        | if described.relaxed_ordering { express::RELAXED } else { 0 }
        | if described.no_snoop { express::NO_SNOOP } else { 0 };
    image.put(at + express::CONTROL, control, express::CONTROL_WRITABLE);
    image.cleared_by_ones(at + express::CONTROL, express::STATUS_CLEARED);
    let link = described.link.map_or(0, |link| speed_field(link.speed.tenths()) | u32::from(link.width & 0x3f) << 4);
    let number = u32::from(described.port_number) << express::PORT_NUMBER_SHIFT;
    image.put(at + express::LINK_CAPABILITIES, number | link, 0);
    image.put(at + express::LINK_CONTROL, link << 16, 0);
    let completes = described.atomic_completer;
    let capabilities_2 = express::PREFIXES
        | if described.atomic_routing { express::ROUTES_ATOMICS } else { 0 }
        | if completes.of_4_bytes { express::COMPLETES_4 } else { 0 }
        | if completes.of_8_bytes { express::COMPLETES_8 } else { 0 }
        | if completes.of_16_bytes { express::COMPLETES_16 } else { 0 };
    image.put(at + express::CAPABILITIES_2, capabilities_2, 0);
    let control_2 = if described.atomic_requester { express::ATOMIC_REQUESTER } else { 0 }
        | if described.atomic_egress_blocked { express::ATOMIC_EGRESS_BLOCKED } else { 0 };
    image.put(at + express::CONTROL_2, control_2, express::CONTROL_2_WRITABLE);
    at
}

/// The encoding of 128 to 4096 bytes (§7.5.3.4); what lies between is rounded down.
fn payload_field(payload: Bytes) -> u32 {
    payload.as_u64().clamp(128, 4096).ilog2() - 7
}

/// The encoding of a link's speed (§7.5.3.6), of which there are six, each about twice the last.
const fn speed_field(tenths: u16) -> u32 {
    match tenths {
        0..50 => 1,
        50..80 => 2,
        80..160 => 3,
        160..320 => 4,
        320..640 => 5,
        640.. => 6,
    }
}

/// The encoding of a port's type (§7.5.3.2).
fn port_type_field(port_type: PortType) -> u32 {
    match port_type {
        PortType::Endpoint => 0x0,
        PortType::LegacyEndpoint => 0x1,
        PortType::RootPort => 0x4,
        PortType::UpstreamPort => 0x5,
        PortType::DownstreamPort => 0x6,
        PortType::PciExpressToPci => 0x7,
        PortType::PciToPciExpress => 0x8,
        PortType::RootComplexIntegrated => 0x9,
        PortType::RootComplexEventCollector => 0xa,
        PortType::Reserved(field) => u32::from(field & 0xf),
    }
}

fn put_messages(image: &mut Image, vectors: u16) -> u16 {
    let at = image.standard(msi::ID, msi::LEN);
    let capable_log2 = u32::from(vectors).clamp(1, 32).next_power_of_two().ilog2();
    image.put(at, msi::IS_64_BIT | capable_log2 << msi::CAPABLE_SHIFT, msi::ENABLE | 7 << msi::ENABLED_SHIFT);
    image.put(at + msi::ADDRESS, 0, !3);
    image.put(at + msi::ADDRESS_UPPER, 0, !0);
    image.put(at + msi::DATA, 0, 0xffff);
    [0, msi::ADDRESS, msi::ADDRESS_UPPER, msi::DATA].into_iter().for_each(|offset| image.routes_nothing(at + offset));
    at
}

fn put_acs(image: &mut Image, described: &AcsDescription) -> AcsPlace {
    let AcsDescription { capability, control, double_words, .. } = *described;
    let bits = match (capability & acs::EGRESS_CONTROL != 0, capability >> 8) {
        (false, _) => 0,
        (true, 0) => 256,
        (true, bits) => bits,
    };
    let registers = if double_words { 8 } else { 4 };
    let at = image.extended(acs::ID, 4 + registers + 4 * bits.div_ceil(32));
    let can_be_set = capability & acs::PAIRED | if capability & acs::ENHANCED != 0 { acs::ENHANCED_CONTROL } else { 0 };
    let shift = if double_words { 0 } else { 16 };
    let place = AcsPlace { capability: at + 4, control: at + registers, control_shift: shift, egress_bits: bits };
    image.put(place.capability, u32::from(capability), 0);
    image.put(place.control, u32::from(control & can_be_set) << shift, u32::from(can_be_set) << shift);
    for n in 0..bits.div_ceil(32) {
        let left = bits - 32 * n;
        let mask = if left >= 32 { !0 } else { (1 << left) - 1 };
        let word = described.egress.get(usize::from(n)).copied().unwrap_or(0);
        image.put(place.egress_word(n), word & mask, mask);
    }
    place
}

fn put_ats(image: &mut Image, enabled: bool) -> u16 {
    let at = image.extended(ats::ID, 8);
    image.put(at + 4, ats::CAPABILITY | if enabled { ats::ENABLE } else { 0 }, ats::WRITABLE);
    at
}

fn put_pri(image: &mut Image, enabled: bool, with_pasid: bool) -> u16 {
    let at = image.extended(pri::ID, pri::LEN);
    let state = if enabled { pri::ENABLE } else { pri::STOPPED };
    let needs = if with_pasid { pri::NEEDS_PASID } else { 0 };
    image.put(at + pri::CONTROL, state | needs, pri::ENABLE);
    image.cleared_by_ones(at + pri::CONTROL, pri::STATUS_CLEARED);
    image.put(at + 8, pri::CAPACITY, 0);
    image.put(at + pri::ALLOCATION, pri::CAPACITY, !0);
    at
}

fn put_pasid(image: &mut Image, described: PasidDescription) -> u16 {
    let at = image.extended(pasid::ID, 8);
    let width = u32::from(described.width.clamp(1, 20)) << pasid::WIDTH_SHIFT;
    let enabled = if described.enabled { pasid::ENABLE } else { 0 };
    image.put(at + 4, pasid::CAPABILITY | width | enabled, pasid::WRITABLE);
    at
}
