//! Pages in any order, and bytes of any kind.

use super::*;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Bytes arrive where the list of pages says, whatever pages and offsets.
    #[test]
    fn a_region_leads_to_the_pages_of_its_list(
        order in Just((0..16_u64).collect::<Vec<_>>()).prop_shuffle(),
        log2 in 12_u32..16,
        offset in 0_u64..0x1000,
        span in (0_u64..0xe000, 1_u64..0x2000),
    ) {
        let bench = Bench::new();
        let sides = bench.sides();
        let [mut a, b] = connected(&bench, &sides, Rights::ALL);
        let size = 1_u64 << log2;
        let base = 0x70_0000_0000 + offset;
        let len = 16 * size - offset;
        let pages = order.iter().map(|page| DeviceAddress::Iova(Iova::new(b.base + page * size)));
        let granule = Granule::new(Bytes::new(size)).unwrap();
        let whole = (RegionAddr::new(base), Bytes::new(len));
        let key = b.driver.register_pages(b.domain, Rights::ALL, whole, granule, pages).unwrap();
        let (at, len) = (span.0.min(len - 1), span.1.min(len - span.0.min(len - 1)));
        let data = bench.fill(a.base, len as usize, 3);
        a.post(1, a.source(0, len), Operation::Write { to: RegionAddr::new(base + at), key, immediate: None });
        prop_assert_eq!(a.pair.wait(), Ok(done(1, len)));
        for (n, byte) in data.iter().enumerate() {
            let at = offset + at + n as u64;
            let place = b.base + order[(at / size) as usize] * size + at % size;
            prop_assert_eq!(bench.bytes(place, 1)[0], *byte);
        }
    }

    /// Whatever stands in the rings and is written to registers, nothing goes on for ever.
    #[test]
    fn rings_and_registers_of_any_bytes_end(
        sends in proptest::collection::vec((0_u32..9, any::<[u64; 7]>(), any::<bool>()), 1..8),
        stores in proptest::collection::vec((0_u64..0x400, any::<u64>()), 0..12),
    ) {
        let bench = Bench::new();
        let sides = bench.sides();
        let [a, b] = connected(&bench, &sides, Rights::ALL);
        for (n, (operation, numbers, sensible)) in sends.iter().enumerate() {
            let mut slot = u64::from(*operation).to_le_bytes().to_vec();
            slot.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
            if *sensible {
                let keys = u64::from(a.key.as_u32()) | u64::from(b.key.as_u32()) << 32;
                slot[16..40].copy_from_slice(&[a.base, keys, numbers[3] % 0x10_0000].map(u64::to_le_bytes).concat());
                slot[40..48].copy_from_slice(&(b.base + numbers[4] % 0x1000).to_le_bytes());
            }
            bench.ram.write(Bytes::new(0x10_0000 + 64 * n as u64), &slot).unwrap();
        }
        sides[0].store(0, a.pair.doorbell(), sends.len() as u64, 4);
        for (at, value) in stores {
            sides[0].store(0, Bytes::new(at * 8), value, 8);
            sides[0].store(0, Bytes::new(at), value, 3);
        }
        let mut steps = 0_u32;
        while sides[0].pause() {
            steps += 1;
            prop_assert!(steps < 100_000);
        }
    }

    /// Commands of any numbers, among them those of on-demand regions, while work is posted that
    /// faults: all ends, and what was not in the region stays as it was.
    #[test]
    fn commands_of_any_arguments_end(
        commands in proptest::collection::vec((0_u64..16, any::<[u64; 6]>(), 0_u8..64), 1..24),
        words in any::<[u64; 16]>(),
    ) {
        let bench = Bench::new();
        let sides = bench.sides();
        let [mut a, b] = connected(&bench, &sides, Rights::ALL);
        let _faults = a.driver.watch_faults(&bench.shared(0x11_0000, 0x1000), 2, None).unwrap();
        let whole = (RegionAddr::new(0x5000_0000), Bytes::new(0x1_0000));
        let key = a.driver.register_on_demand(a.domain, Rights::ALL, whole, Granule::PAGE_4K).unwrap();
        // Pages behind the machine's memory, in it, and crooked ones.
        for (n, word) in words.into_iter().enumerate() {
            let word = match word % 64 {
                0 => word,
                1..8 => word & !0xfff,
                _ => 0x180_0000 + (word >> 8) % 0x100 * 0x1000,
            };
            bench.ram.write(Bytes::new(0x12_0000 + 8 * n as u64), &word.to_le_bytes()).unwrap();
        }
        let local = Source { at: RegionAddr::new(0x5000_0800), key, len: Bytes::new(0x3000) };
        a.post(1, local, Operation::Write { to: b.at(0), key: b.key, immediate: None });
        a.post(2, local, Operation::Read { from: b.at(0), key: b.key });
        let mut steps = 0_u32;
        for (number, mut arguments, sensible) in commands {
            let plain = [u64::from(key.as_u32()) | 1 << 32, 0x5000_0000, 0x1_0000, 12, 0x12_0000, 16];
            let short = [u64::from(key.as_u32()), 0x5000_0000 + (arguments[1] % 0x100) * 0x1000, arguments[2] % 0x4000];
            let some = if number == 13 || sensible & 1 == 0 { &short[..] } else { &plain[..] };
            for (n, argument) in some.iter().enumerate().filter(|(n, _)| sensible >> n & 1 != 0 || sensible > 16) {
                arguments[n] = *argument;
            }
            // Numbers of faults are small at first.
            arguments[0] = if number == 12 { (1 << 16) + arguments[0] % 4 } else { arguments[0] };
            for (n, argument) in (0..).zip(arguments) {
                sides[0].store(0, Bytes::new(0x40 + 8 * n), argument, 8);
            }
            sides[0].store(0, Bytes::new(0x80), number, 8);
            while sides[0].pause() {
                steps += 1;
                prop_assert!(steps < 100_000);
            }
        }
        // Rings, lists and the other side's registered memory aside, nothing was reached.
        prop_assert!(bench.bytes(0x40_0000, 0x10_0000).iter().all(|byte| *byte == 0));
    }
}
