//! Lines as drivers print them, and as people post them.

use super::*;
use peerdma::addr::{BusAddr, PhysAddr};

fn only(line: &str) -> Event {
    let log = parse(line);
    assert_eq!(log.events.len(), 1, "{line}: {log:?}");
    log.events[0].clone()
}

fn address(text: &str) -> Option<PciAddr> {
    Some(text.parse().unwrap())
}

#[test]
fn p2pdma_s_refusals_name_both_ends() {
    let provider = address("0000:04:00.0");
    let refused = only(
        "[  9.1] nvme 0000:03:00.0: cannot be used for peer-to-peer DMA as the client and provider (0000:04:00.0) do not share an upstream bridge or whitelisted host bridge",
    );
    assert_eq!((refused.kind, refused.device), (Kind::P2pRefused { provider }, address("0000:03:00.0")));
    let redirected = only("nvme 0000:03:00.0: ACS redirect is set between the client and provider (0000:04:00.0)");
    assert_eq!(redirected.kind, Kind::P2pRedirected { provider });
    let hint = only(
        "nvme 0000:03:00.0: to disable ACS redirect for this path, add the kernel parameter: pci=disable_acs_redir=0000:02:00.0;0000:02:01.0",
    );
    let parameter = "pci=disable_acs_redir=0000:02:00.0;0000:02:01.0".to_string();
    assert_eq!(hint.kind, Kind::P2pHint { parameter });
    let listed = only("pci 0000:00:00.0: Host bridge not in P2PDMA whitelist: 8086:4c43");
    assert_eq!(listed.kind, Kind::HostBridgeNotListed { id: PciId { vendor: 0x8086, device: 0x4c43 } });
    assert_eq!(only("PCI: Unknown option `noacs'").kind, Kind::ParameterUnread);
    assert_eq!(only("[    0.2] PCI: Can't parse ACS command line parameter").kind, Kind::ParameterUnread);
}

#[test]
fn a_fault_tells_device_address_and_direction_whatever_the_iommu() {
    let write = Some(Access::Write);
    for (line, device, number, access) in [
        (
            "DMAR: [DMA Write NO_PASID] Request device [0000:03:00.0] fault addr 0xf7e00000 [fault reason 0x05] PTE Write access is not set",
            address("0000:03:00.0"),
            0xf7e0_0000,
            write,
        ),
        (
            "DMAR: [DMA Write] Request device [03:00.0] PASID ffffffff fault addr f7e00000 [fault reason 05] PTE Write access is not set",
            address("0000:03:00.0"),
            0xf7e0_0000,
            write,
        ),
        (
            "DMAR: [DMA Read NO_PASID] Request device [0x02:0x00.0] fault addr 0x40000000000 [fault reason 0x04] Access beyond MGAW",
            address("0000:02:00.0"),
            0x400_0000_0000,
            Some(Access::Read),
        ),
        (
            "nvidia 0000:03:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x000e address=0xe0000000 flags=0x0030]",
            address("0000:03:00.0"),
            0xe000_0000,
            write,
        ),
        (
            "AMD-Vi: Event logged [IO_PAGE_FAULT device=0a:00.0 domain=0x001d address=0x000000000637c000 flags=0x0000]",
            address("0000:0a:00.0"),
            0x637_c000,
            None,
        ),
        (
            "arm-smmu-v3 arm-smmu-v3.0.auto: event: F_TRANSLATION client: 0000:01:00.0 sid: 0x100 ssid: 0x0 iova: 0xf7e00000 ipa: 0x0",
            address("0000:01:00.0"),
            0xf7e0_0000,
            None,
        ),
        (
            "arm-smmu 9050000.iommu: Unhandled context fault: fsr=0x402, iova=0xf7e00000, fsynr=0x11, cbfrsynra=0x100, cb=0",
            None,
            0xf7e0_0000,
            write,
        ),
        (
            "virtio_iommu virtio1: page fault from EP 1280 at 0x200000000 [ W ]",
            address("0000:05:00.0"),
            0x2_0000_0000,
            write,
        ),
    ] {
        let event = only(line);
        assert_eq!((event.device, event.address), (device, Some(Iova::new(number))), "{line}");
        assert!(matches!(event.kind, Kind::IommuFault { access: found, .. } if found == access), "{line}");
    }
}

#[test]
fn smmu_v3_s_words_are_one_event_said_twice_or_once() {
    let words = "\
arm-smmu-v3 arm-smmu-v3.0.auto: event 0x10 received:
arm-smmu-v3 arm-smmu-v3.0.auto: \t0x0000010000000010
arm-smmu-v3 arm-smmu-v3.0.auto: \t0x0000020000000000
arm-smmu-v3 arm-smmu-v3.0.auto: \t0x00000000f7e00000
arm-smmu-v3 arm-smmu-v3.0.auto: \t0x0000000000000000
";
    let event = only(words);
    assert_eq!((event.device, event.address), (None, Some(Iova::new(0xf7e0_0000))));
    let reason = "F_TRANSLATION, stream ID 0x100".to_string();
    assert_eq!(event.kind, Kind::IommuFault { access: Some(Access::Write), reason });
    let said = "arm-smmu-v3 arm-smmu-v3.0.auto: event: F_TRANSLATION client: 0000:01:00.0 sid: 0x100 ssid: 0x0 iova: 0xf7e00000 ipa: 0x0\n";
    assert_eq!(only(&format!("{words}{said}")).device, address("0000:01:00.0"));
}

#[test]
fn an_error_report_becomes_one_event_an_error_with_the_packet() {
    let log = parse(
        "\
[ 1.0] pcieport 0000:00:03.1: AER: Uncorrectable (Non-Fatal) error message received from 0000:02:00.0
[ 1.0] pcieport 0000:02:00.0: PCIe Bus Error: severity=Uncorrectable (Non-Fatal), type=Transaction Layer, (Requester ID)
[ 1.0] pcieport 0000:02:00.0:   device [10b5:9797] error status/mask=00300000/00000000
[ 1.0] pcieport 0000:02:00.0:    [20] UnsupReq
[ 1.0] pcieport 0000:02:00.0:    [21] ACSViol                (First)
[ 1.0] pcieport 0000:02:00.0:   TLP Header: 60000001 0300000f 00000050 91000000
[ 1.1] nvme 0000:03:00.0: PCIe Bus Error: severity=Correctable, type=Physical Layer, (Receiver ID)
[ 1.1] nvme 0000:03:00.0:    [ 0] RxErr                  (First)
",
    );
    assert_eq!(log.events.len(), 2, "{log:?}");
    for (event, error) in log.events.iter().zip([AerError::UnsupportedRequest, AerError::AcsViolation]) {
        assert_eq!((event.device, event.address), (address("0000:02:00.0"), Some(Iova::new(0x50_9100_0000))));
        let requester = address("0000:03:00.0");
        assert_eq!(event.kind, Kind::Aer { severity: Some(Severity::NonFatal), error, requester });
    }
    let newer = parse(
        "pcieport 0000:02:00.0: AER: CXL Bus Error: severity=Uncorrectable (Fatal), type=Transaction Layer, (Receiver ID)
pcieport 0000:02:00.0:    [14] CmpltTO                (First)
pcieport 0000:02:00.0: AER:   TLP Header: 0x4a000001 0x0300000f 0x00000000 0x00000000
",
    );
    let kind = Kind::Aer { severity: Some(Severity::Fatal), error: AerError::CompletionTimeout, requester: None };
    assert_eq!(newer.events[0].kind, kind, "a completion's header tells no address");
}

#[test]
fn windows_encryption_and_vfio_are_told() {
    let window = only(
        "pci_bus 0000:00: root bus resource [mem 0x5090000000-0x509fffffff pref window] (bus address [0x90000000-0x9fffffff])",
    );
    let Kind::HostWindow { domain: 0, bus: 0, window } = window.kind else { panic!("{window:?}") };
    assert_eq!(
        (window.cpu().start(), window.bus().start()),
        (PhysAddr::new(0x50_9000_0000), BusAddr::new(0x9000_0000))
    );
    let plain = only("pci_bus 0001:40: root bus resource [mem 0x80000000-0xbfffffff window]");
    assert!(matches!(plain.kind, Kind::HostWindow { domain: 1, bus: 0x40, window } if window.is_one_to_one()));
    assert_eq!(parse("pci_bus 0000:00: root bus resource [bus 00-ff]").events, []);
    assert_eq!(
        only("Memory Encryption Features active: AMD SEV SEV-ES SEV-SNP").kind,
        Kind::MemoryEncryption { guest: true }
    );
    assert_eq!(only("Memory Encryption Features active: AMD SME").kind, Kind::MemoryEncryption { guest: false });
    assert_eq!(only("vfio_pin_pages_remote: RLIMIT_MEMLOCK (65536) exceeded").kind, Kind::Vfio);
    assert_eq!(parse("vfio-pci 0000:05:00.0: enabling device (0000 -> 0002)").events, []);
}

#[test]
fn a_flood_is_counted_and_not_kept() {
    let line = "virtio_iommu virtio1: page fault from EP 1280 at 0x200000000 [ W ]\n";
    let log = parse(&line.repeat(MAX_EVENTS + 7));
    assert_eq!((log.events.len(), log.dropped), (MAX_EVENTS, 7));
}

proptest::proptest! {
    #[test]
    fn no_log_panics(text in "([\\[\\]<>;:. 0-9a-fx]|DMAR: \\[DMA Write|fault addr |Request device \\[|IO_PAGE_FAULT |address=|0000:03:00.0: |TLP Header:|severity=Unc|Bus Error: |\\n|\\PC){0,80}") {
        for event in parse(&text).events {
            proptest::prop_assert!(event.text.len() <= 3 * MAX_TEXT);
        }
    }
}
