//! `lspci -vvv` of a machine that exists only here: two sockets, eight GPUs behind
//! eight switches, a network card and disks beside each, and the hundreds of
//! integrated functions that such servers list.
//!
//! The text has the form, the order of size (a megabyte, over 500 functions) and the
//! odd capabilities of what people post, so that reading it costs what reading
//! theirs costs.

use std::fmt::Write;

/// Switches, each with one GPU, one network card and two disks.
const SWITCHES: u8 = 8;

/// The whole server: 512 functions, a megabyte.
pub fn eight_gpu_server() -> String {
    server(28)
}

/// The same server with few of the integrated functions, for what grows with the square.
pub fn eight_gpu_server_without_uncore() -> String {
    server(2)
}

/// `uncore` devices of seven integrated functions for each socket.
fn server(uncore: u8) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail, so results of write! are dropped below.
    for socket in 0..2u8 {
        for bridge in 0..5u8 {
            let bus = socket * 0x80 + bridge * 0x0a;
            host_bridge(&mut text, bus);
            if bridge < SWITCHES / 2 {
                switch(&mut text, bus + 1, bus, bridge);
            }
        }
        // The uncore's integrated functions, on buses that nothing leads to.
        for device in 0..uncore {
            for function in 0..7u8 {
                integrated(&mut text, socket * 0x80 + 0x7e, device, function);
            }
        }
    }
    text
}

fn host_bridge(text: &mut String, bus: u8) {
    for (function, device) in [(0, "09a2"), (1, "09a4"), (2, "09a3")] {
        let _ = writeln!(text, "{bus:02x}:00.{function} System peripheral: Intel Corporation Device {device} (rev 20)");
        common(text, "Root Complex Integrated Endpoint", 128);
        text.push('\n');
    }
    let _ = writeln!(text, "{bus:02x}:00.4 Generic system peripheral [0807]: Intel Corporation Device 0b23");
    common(text, "Root Complex Event Collector", 512);
    let _ =
        writeln!(text, "\tCapabilities: [160 v2] Root Complex Event Collector <?>\n\tKernel driver in use: pcieport\n");
}

fn integrated(text: &mut String, bus: u8, device: u8, function: u8) {
    let _ = writeln!(text, "{bus:02x}:{device:02x}.{function} System peripheral: Intel Corporation Device 324c");
    common(text, "Root Complex Integrated Endpoint", 128);
    text.push('\n');
}

fn switch(text: &mut String, root_device: u8, bus: u8, index: u8) {
    let last = bus + 7;
    let root_device = root_device & 0x1f;
    let _ = writeln!(
        text,
        "{bus:02x}:{root_device:02x}.0 PCI bridge: Intel Corporation Device 352a (rev 04) (prog-if 00 [Normal decode])"
    );
    port(text, "Root Port (Slot-)", bus, bus + 1, last, Some(0x11));
    let _ = writeln!(
        text,
        "{:02x}:00.0 PCI bridge: Broadcom / LSI PEX890xx PCIe Gen 5 Switch (rev b0) (prog-if 00 [Normal decode])",
        bus + 1
    );
    port(text, "Upstream Port", bus + 1, bus + 2, last, None);
    for slot in 0..4u8 {
        let _ = writeln!(
            text,
            "{:02x}:{slot:02x}.0 PCI bridge: Broadcom / LSI PEX890xx PCIe Gen 5 Switch (rev b0) (prog-if 00 [Normal decode])",
            bus + 2
        );
        port(
            text,
            "Downstream Port (Slot+)",
            bus + 2,
            bus + 3 + slot,
            bus + 3 + slot,
            Some(if index == 3 { 0x1d } else { 0x00 }),
        );
    }
    let endpoints = [
        ("3D controller: NVIDIA Corporation Device 2330 (rev a1)", "nvidia"),
        ("Ethernet controller: Mellanox Technologies MT2910 Family [ConnectX-7]", "mlx5_core"),
        (
            "Non-Volatile memory controller: Samsung Electronics Co Ltd NVMe SSD Controller PM9A1/PM9A3/980PRO (prog-if 02 [NVM Express])",
            "nvme",
        ),
        (
            "Non-Volatile memory controller: Micron Technology Inc Device 51c3 (rev 01) (prog-if 02 [NVM Express])",
            "nvme",
        ),
    ];
    for (slot, (name, driver)) in endpoints.iter().enumerate() {
        let bus = bus + 3 + slot as u8;
        let _ = writeln!(text, "{bus:02x}:00.0 {name}");
        let _ = writeln!(
            text,
            "\tRegion 0: Memory at {:x}0000000 (64-bit, prefetchable) [size=64M]",
            0x2000 + u32::from(bus)
        );
        let _ = writeln!(
            text,
            "\tRegion 2: Memory at {:x}00000000 (64-bit, prefetchable) [size=128G]",
            0x2000 + u32::from(bus)
        );
        common(text, "Endpoint", 256);
        let _ = writeln!(
            text,
            "\tCapabilities: [bb0 v1] Physical Resizable BAR\n\
             \t\tBAR 0: current size: 64MB, supported: 64MB\n\
             \t\tBAR 2: current size: 128GB, supported: 64MB 128MB 256MB 512MB 1GB 2GB 4GB 8GB 16GB 32GB 64GB 128GB\n\
             \tCapabilities: [c50 v1] Alternative Routing-ID Interpretation (ARI)\n\
             \t\tARICap:\tMFVC- ACS-, Next Function: 0\n\
             \t\tARICtl:\tMFVC- ACS-, Function Group: 0\n\
             \tKernel driver in use: {driver}\n"
        );
    }
}

fn port(text: &mut String, kind: &str, primary: u8, secondary: u8, subordinate: u8, acs: Option<u8>) {
    let _ = writeln!(
        text,
        "\tRegion 0: Memory at 20fffff{primary:02x}000 (64-bit, non-prefetchable) [size=128K]\n\
         \tBus: primary={primary:02x}, secondary={secondary:02x}, subordinate={subordinate:02x}, sec-latency=0\n\
         \tI/O behind bridge: 0000f000-00000fff [disabled]\n\
         \tMemory behind bridge: 90100000-901fffff [size=1M]\n\
         \tPrefetchable memory behind bridge: 0000{primary:02x}0000000000-0000{primary:02x}3fffffffff [size=256G]\n\
         \tSecondary status: 66MHz- FastB2B- ParErr- DEVSEL=fast >TAbort- <TAbort- <MAbort- <SERR- <PERR-\n\
         \tBridgeCtl: Parity+ SERR+ NoISA- VGA- VGA16- MAbort- >Reset- FastB2B-\n\
         \t\tPriDiscTmr- SecDiscTmr- DiscTmrStat- DiscTmrSERREn-"
    );
    common(text, kind, 256);
    if let Some(control) = acs {
        let bits = ["SrcValid", "TransBlk", "ReqRedir", "CmpltRedir", "UpstreamFwd", "EgressCtrl", "DirectTrans"];
        let words = |word: u8| {
            bits.iter()
                .enumerate()
                .map(|(bit, name)| format!("{name}{}", if word & 1 << bit != 0 { '+' } else { '-' }))
                .collect::<Vec<_>>()
                .join(" ")
        };
        let _ = writeln!(
            text,
            "\tCapabilities: [148 v1] Access Control Services\n\t\tACSCap:\t{}\n\t\tACSCtl:\t{}",
            words(0x5f),
            words(control)
        );
    }
    let _ = writeln!(
        text,
        "\tCapabilities: [190 v1] Downstream Port Containment\n\
         \t\tDpcCap:\tINT Msg #0, RPExt+ PoisonedTLP+ SwTrigger+ RP PIO Log 4, DL_ActiveErr+\n\
         \t\tDpcCtl:\tTrigger:0 Cmpl- INT- ErrCor- PoisonedTLP+ SwTrigger- DL_ActiveErr-\n\
         \tKernel driver in use: pcieport\n"
    );
}

/// The part that every function of such a server prints.
fn common(text: &mut String, kind: &str, payload: u32) {
    let _ = writeln!(
        text,
        "\tSubsystem: Dell Device 0b73\n\
         \tControl: I/O- Mem+ BusMaster+ SpecCycle- MemWINV- VGASnoop- ParErr+ Stepping- SERR+ FastB2B- DisINTx+\n\
         \tStatus: Cap+ 66MHz- UDF- FastB2B- ParErr- DEVSEL=fast >TAbort- <TAbort- <MAbort- >SERR- <PERR- INTx-\n\
         \tLatency: 0\n\
         \tInterrupt: pin A routed to IRQ 140\n\
         \tNUMA node: 0\n\
         \tCapabilities: [40] Express (v2) {kind}, MSI 00\n\
         \t\tDevCap:\tMaxPayload {payload} bytes, PhantFunc 0\n\
         \t\t\tExtTag+ RBE+\n\
         \t\tDevCtl:\tCorrErr- NonFatalErr- FatalErr+ UnsupReq-\n\
         \t\t\tRlxdOrd- ExtTag+ PhantFunc- AuxPwr- NoSnoop-\n\
         \t\t\tMaxPayload {payload} bytes, MaxReadReq 512 bytes\n\
         \t\tDevSta:\tCorrErr- NonFatalErr- FatalErr- UnsupReq- AuxPwr- TransPend-\n\
         \t\tLnkCap:\tPort #12, Speed 32GT/s, Width x16, ASPM not supported\n\
         \t\t\tClockPM- Surprise+ LLActRep+ BwNot+ ASPMOptComp+\n\
         \t\tLnkCtl:\tASPM Disabled; RCB 64 bytes, Disabled- CommClk+\n\
         \t\t\tExtSynch- ClockPM- AutWidDis- BWInt- AutBWInt-\n\
         \t\tLnkSta:\tSpeed 32GT/s (ok), Width x16 (ok)\n\
         \t\t\tTrErr- Train- SlotClk+ DLActive+ BWMgmt- ABWMgmt-\n\
         \t\tDevCap2: Completion Timeout: Range ABC, TimeoutDis+ NROPrPrP+ LTR+\n\
         \t\t\t 10BitTagComp- 10BitTagReq- OBFF Not Supported, ExtFmt- EETLPPrefix-\n\
         \t\t\t AtomicOpsCap: Routing- 32bit- 64bit- 128bitCAS-\n\
         \t\tDevCtl2: Completion Timeout: 65ms to 210ms, TimeoutDis- LTR+ OBFF Disabled, ARIFwd-\n\
         \t\t\t AtomicOpsCtl: ReqEn- EgressBlck-\n\
         \tCapabilities: [80] Power Management version 3\n\
         \t\tFlags: PMEClk- DSI- D1- D2- AuxCurrent=0mA PME(D0+,D1-,D2-,D3hot+,D3cold+)\n\
         \t\tStatus: D0 NoSoftRst- PME-Enable- DSel=0 DScale=0 PME-\n\
         \tCapabilities: [100 v1] Advanced Error Reporting\n\
         \t\tUESta:\tDLP- SDES- TLP- FCP- CmpltTO- CmpltAbrt- UnxCmplt- RxOF- MalfTLP- ECRC- UnsupReq- ACSViol-\n\
         \t\tUEMsk:\tDLP- SDES- TLP- FCP- CmpltTO- CmpltAbrt- UnxCmplt+ RxOF- MalfTLP- ECRC- UnsupReq+ ACSViol+\n\
         \t\tUESvrt:\tDLP+ SDES+ TLP+ FCP+ CmpltTO+ CmpltAbrt+ UnxCmplt- RxOF+ MalfTLP+ ECRC+ UnsupReq- ACSViol-\n\
         \t\tHeaderLog: 4a000001 01000004 fc000000 00000000"
    );
}
