//! The fabric's reading against the core's decoder, which shares no code with it.

use super::{bar, range, writes};
use crate::config::{
    AcsDescription, BarDescription, Buses, Description, ExpressDescription, Header, LinkDescription, PasidDescription,
    Space, Width,
};
use peerdma::addr::{BusAddr, Bytes};
use peerdma::pcie::config::{ConfigSize, ConfigSpace};
use peerdma::pcie::decode::{HeaderType, Registers};
use peerdma::pcie::express::{AtomicSizes, LinkSpeed, PortType};
use peerdma::pcie::{ClassCode, Fact, PciId};
use proptest::prelude::*;

struct Seen<'a>(&'a Space);

impl ConfigSpace for Seen<'_> {
    fn byte(&self, offset: u16) -> Option<u8> {
        (offset < self.0.size()).then(|| self.0.read(offset, Width::One) as u8)
    }

    fn size(&self) -> ConfigSize {
        ConfigSize::Kernel(self.0.size())
    }
}

fn description() -> impl Strategy<Value = Description> {
    let port_type = prop::sample::select(vec![
        PortType::Endpoint,
        PortType::LegacyEndpoint,
        PortType::RootPort,
        PortType::UpstreamPort,
        PortType::DownstreamPort,
        PortType::PciExpressToPci,
        PortType::PciToPciExpress,
        PortType::RootComplexIntegrated,
        PortType::RootComplexEventCollector,
    ]);
    let express = (port_type, any::<u8>(), 0u32..6, 0u32..6, any::<[bool; 8]>(), prop::option::of((1u8..7, 0u8..64)));
    let express = express.prop_map(|(port_type, port_number, payload, read, flags, link)| {
        let [relaxed_ordering, no_snoop, atomic_routing, atomic_egress_blocked, atomic_requester, a, b, c] = flags;
        ExpressDescription {
            port_type,
            port_number,
            max_payload_supported: Bytes::new(512),
            max_payload: Bytes::new(128 << payload),
            max_read_request: Bytes::new(128 << read),
            relaxed_ordering,
            no_snoop,
            atomic_routing,
            atomic_egress_blocked,
            atomic_requester,
            atomic_completer: AtomicSizes { of_4_bytes: a, of_8_bytes: b, of_16_bytes: c },
            link: link.map(|(speed, width)| LinkDescription { speed: LinkSpeed::from_field(speed).unwrap(), width }),
        }
    });
    let window = prop::option::of((0u64..0xfff, 0u64..0x10));
    let window_of = |shift: u32| {
        move |window: Option<(u64, u64)>| {
            let (first, more) = window?;
            range(first << shift, ((first + more) << shift) + ((1 << shift) - 1))
        }
    };
    let acs = (any::<u16>(), any::<u16>(), prop::collection::vec(any::<u32>(), 0..9));
    let acs = acs.prop_map(|(capability, control, egress)| AcsDescription {
        capability,
        control,
        egress,
        double_words: false,
    });
    let bars = prop::collection::vec((0u8..6, any::<u64>(), 4u32..34, any::<[bool; 3]>()), 0..5);
    let bars = bars.prop_map(|bars| {
        let one = |(index, address, size_log2, [is_64_bit, prefetchable, resizes]): (u8, u64, u32, [bool; 3])| {
            let resizable = if resizes { vec![Bytes::new(1 << 20), Bytes::new(1 << 30)] } else { Vec::new() };
            BarDescription { prefetchable, resizable, ..bar(index, address, 1 << size_log2, is_64_bit) }
        };
        bars.into_iter().map(one).collect::<Vec<_>>()
    });
    let enables = (prop::option::of(any::<bool>()), prop::option::of(any::<bool>()));
    let pasid = prop::option::of((any::<bool>(), 1u8..21));
    let head = (any::<u16>(), any::<u32>(), any::<[bool; 4]>(), any::<[u8; 3]>(), 0u16..70);
    (prop::option::of(express), window.clone(), window, prop::option::of(acs), bars, enables, pasid, head).prop_map(
        move |(express, memory, prefetchable, acs, bars, (ats, pri), pasid, head)| {
            let (device, class, [multifunction, memory_enabled, bus_master, power_management], buses, messages) = head;
            let is_bridge =
                express.is_some_and(|express| Description::express(express.port_type).header == Header::Bridge);
            Description {
                id: PciId { vendor: 0x1b36, device },
                class: ClassCode::new(class),
                header: if is_bridge { Header::Bridge } else { Header::Device },
                multifunction,
                memory_enabled,
                bus_master,
                buses: is_bridge.then_some(Buses { primary: buses[0], secondary: buses[1], subordinate: buses[2] }),
                memory_window: window_of(20)(memory).filter(|window| window.last() < BusAddr::new(1 << 32)),
                prefetchable_window: window_of(30)(prefetchable),
                bars,
                power_management,
                message_interrupts: messages,
                express,
                acs,
                ats,
                pri,
                pasid: pasid.map(|(enabled, width)| PasidDescription { enabled, width }),
            }
        },
    )
}

/// Everything that both read.
fn agree(space: &Space) -> Result<(), TestCaseError> {
    let read = Registers::decode(&Seen(space));
    let header = if space.header() == Header::Bridge { HeaderType::Bridge } else { HeaderType::Device };
    prop_assert_eq!(read.header, Some(header));
    prop_assert_eq!(read.port_type, Fact::Known(space.port_type()));
    let command = read.command.unwrap();
    prop_assert_eq!(space.memory_enabled(), command.memory && space.is_awake());
    prop_assert_eq!(space.bus_master(), command.bus_master && space.is_awake());
    let buses = read.buses.filter(|buses| buses.secondary != 0);
    prop_assert_eq!(space.buses_below(), buses.map(|buses| (buses.secondary, buses.subordinate)));
    let vga = space.header() == Header::Bridge && space.read(0x3e, Width::Two) & 8 != 0;
    let windows: Vec<_> = space.windows().take(space.windows().count() - usize::from(vga)).collect();
    prop_assert_eq!(windows, read.windows.open().collect::<Vec<_>>());
    for bar in &read.bars {
        prop_assert_eq!(space.bar(bar.index).map(|range| range.start()), bar.memory);
    }
    let acs = read.acs.registers();
    let standard = space.acs().map(|registers| (registers.capability, registers.control));
    prop_assert_eq!(standard, acs.map(|acs| (acs.capability.bits(), acs.control.known().unwrap().bits())));
    if let Some(acs) = acs {
        let words = (0u16..).zip(&acs.egress);
        let bits = words.flat_map(|(n, word)| (0..32).map(move |bit| (32 * n + bit, word >> bit & 1 != 0)));
        for (bit, set) in bits.take(256) {
            prop_assert_eq!(space.egress_bit(bit as u8), set);
        }
    }
    let express = read.express;
    prop_assert_eq!(space.max_payload(), express.max_payload);
    prop_assert_eq!(space.max_read_request(), express.max_read_request);
    prop_assert_eq!(space.relaxed_ordering(), express.relaxed_ordering.unwrap_or(false));
    prop_assert_eq!(space.no_snoop(), express.no_snoop.unwrap_or(false));
    prop_assert_eq!(space.port_number(), express.port_number.unwrap_or(0));
    prop_assert_eq!(space.atomic_routing(), express.atomic_routing.unwrap_or(false));
    prop_assert_eq!(space.atomic_egress_blocked(), express.atomic_egress_blocked.unwrap_or(false));
    prop_assert_eq!(space.atomic_requester(), express.atomic_requester.unwrap_or(false));
    for len in [1, 4, 8, 16, 32].map(Bytes::new) {
        prop_assert_eq!(space.atomic_completes(len), express.atomic_completer.unwrap_or_default().takes(Some(len)));
    }
    prop_assert_eq!(space.ats_enabled(), read.ats.known().flatten().is_some_and(|ats| ats.enabled));
    prop_assert_eq!(space.pri_enabled(), read.pri.known().flatten().is_some_and(|pri| pri.enabled));
    let pasid = read.pasid.known().flatten().filter(|pasid| pasid.enabled);
    prop_assert_eq!(space.pasid_width(), pasid.map(|pasid| pasid.width));
    for resizable in &read.resizable {
        prop_assert_eq!(space.bar(resizable.index).map(|range| range.len()), Some(resizable.size));
    }
    Ok(())
}

proptest! {
    #[test]
    fn registers_say_what_the_description_says(description in description()) {
        let space = Space::new(&description);
        agree(&space)?;
        let read = Registers::decode(&Seen(&space));
        prop_assert_eq!((read.id, read.class), (Some(description.id), Some(description.class)));
        prop_assert_eq!(read.multifunction, Some(description.multifunction));
        let command = read.command.unwrap();
        prop_assert_eq!((command.memory, command.bus_master), (description.memory_enabled, description.bus_master));
        if description.header == Header::Bridge {
            prop_assert_eq!(read.windows.memory, Fact::Known(description.memory_window));
            prop_assert_eq!(read.windows.prefetchable, Fact::Known(description.prefetchable_window));
            let buses = read.buses.unwrap();
            let buses = Buses { primary: buses.primary, secondary: buses.secondary, subordinate: buses.subordinate };
            prop_assert_eq!(Some(buses), description.buses);
        }
        match description.express {
            None => {
                prop_assert_eq!(read.port_type, Fact::Known(None));
                prop_assert!(read.acs.registers().is_none() && read.ats == Fact::Known(None));
            }
            Some(express) => {
                prop_assert_eq!(read.port_type, Fact::Known(Some(express.port_type)));
                prop_assert_eq!(read.express.max_payload, Some(express.max_payload));
                prop_assert!(read.express.max_payload_supported >= Some(express.max_payload));
                prop_assert_eq!(read.express.max_read_request, Some(express.max_read_request));
                prop_assert_eq!(read.express.atomic_completer, Some(express.atomic_completer));
                prop_assert_eq!(read.express.link.speed, express.link.map(|link| link.speed));
                prop_assert_eq!(read.express.link.width, Some(express.link.map_or(0, |link| link.width)));
                prop_assert_eq!(read.express.port_number, Some(express.port_number));
                prop_assert_eq!(read.ats.known().unwrap().map(|ats| ats.enabled), description.ats);
                prop_assert_eq!(read.pri.known().unwrap().map(|pri| pri.enabled), description.pri);
                let pasid = read.pasid.known().unwrap();
                prop_assert_eq!(pasid.map(|pasid| (pasid.enabled, pasid.width)),
                    description.pasid.map(|pasid| (pasid.enabled, pasid.width)));
                let acs = read.acs.registers().map(|acs| acs.capability.bits());
                prop_assert_eq!(acs, description.acs.map(|acs| acs.capability));
            }
        }
    }

    #[test]
    fn both_read_the_same_after_any_writes(description in description(), writes in writes()) {
        let space = Space::new(&description);
        for (offset, width, value) in writes {
            space.write(offset, width, value);
        }
        agree(&space)?;
        for vector in [0, 1, 31, 32, u16::MAX] {
            let _ = space.message(vector);
        }
        for address in [0, 0x9000_0000, u64::MAX].map(BusAddr::new) {
            let inside = space.windows().any(|window| window.start() <= address && address <= window.last());
            prop_assert!(space.window_claims(address) == inside || address == BusAddr::new(u64::MAX));
            let _ = space.bar_hit(address);
        }
        space.reset();
        agree(&space)?;
    }
}
