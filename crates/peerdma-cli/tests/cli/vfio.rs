//! `peerdma vfio` on copied machines, where nothing can be done, and on this one, where nothing is.

use crate::machine::{As, Folder, json_of, peerdma, stdout_of, write_tree};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// The machine with IOMMU groups, drivers and a file system: 03:00.0 (nvme, mounted), 04:00.0 (mlx5_core, up) and
/// 05:00.0 (no driver) in groups of their own.
fn machine() -> Folder {
    let folder = Folder::new();
    write_tree(folder.path(), As::Root);
    let root = folder.path();
    let drives = "pci0000:00/0000:00:01.0/0000:01:00.0/0000:02:00.0/0000:03:00.0";
    let card = "pci0000:00/0000:00:01.0/0000:01:00.0/0000:02:01.0/0000:04:00.0";
    let gpu = "pci0000:00/0000:00:02.0/0000:05:00.0";
    for (group, real, driver) in [(3, drives, Some("nvme")), (4, card, Some("mlx5_core")), (5, gpu, None)] {
        let device = root.join("sys/devices").join(real);
        let members = root.join(format!("sys/kernel/iommu_groups/{group}/devices"));
        fs::create_dir_all(&members).unwrap();
        symlink(Path::new("../../../../devices").join(real), members.join(device.file_name().unwrap())).unwrap();
        symlink(format!("../../../../kernel/iommu_groups/{group}"), device.join("iommu_group")).unwrap();
        fs::write(device.join("reset_method"), "flr bus\n").unwrap();
        if let Some(driver) = driver {
            let drivers = root.join("sys/bus/pci/drivers").join(driver);
            fs::create_dir_all(&drivers).unwrap();
            symlink(format!("../../../../bus/pci/drivers/{driver}"), device.join("driver")).unwrap();
        }
    }
    fs::create_dir_all(root.join("sys/bus/pci/drivers/vfio-pci/uevent")).unwrap();
    let block = root.join("sys/devices").join(drives).join("nvme/nvme0/nvme0n1");
    fs::create_dir_all(&block).unwrap();
    fs::write(block.join("dev"), "259:0\n").unwrap();
    fs::create_dir_all(root.join("sys/class/block")).unwrap();
    let to_block = Path::new("../../devices").join(drives).join("nvme/nvme0/nvme0n1");
    symlink(to_block, root.join("sys/class/block/nvme0n1")).unwrap();
    let net = root.join("sys/devices").join(card).join("net/enx00aabbccddee");
    fs::write(net.join("flags"), "0x1003\n").unwrap();
    fs::create_dir_all(root.join("sys/class/net")).unwrap();
    let to_net = Path::new("../../devices").join(card).join("net/enx00aabbccddee");
    symlink(to_net, root.join("sys/class/net/enx00aabbccddee")).unwrap();
    fs::create_dir_all(root.join("proc/self")).unwrap();
    fs::write(root.join("proc/self/mountinfo"), "22 1 259:0 / /home rw shared:1 - ext4 /dev/nvme0n1 rw\n").unwrap();
    fs::write(root.join("proc/swaps"), "Filename\tType\tSize\tUsed\tPriority\n").unwrap();
    folder
}

fn root(folder: &Folder) -> String {
    folder.path().display().to_string()
}

#[test]
fn the_list_says_who_uses_what_and_what_stands_in_the_way() {
    let folder = machine();
    let text = stdout_of(&["vfio", "list", "--sysfs-root", &root(&folder)], 0);
    for words in ["nvme0n1 is mounted at /home", "the interface enx00aabbccddee is up", "free; bind it", "flr bus"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("0000:00:01.0"), "bridges are left out: {text}");
    let document = json_of(&["vfio", "list", "--json", "--all", "--sysfs-root", &root(&folder)], 0);
    let functions = document["functions"].as_array().unwrap();
    assert_eq!(functions.len(), 9);
    let drive = functions.iter().find(|one| one["address"] == "0000:03:00.0").unwrap();
    assert_eq!((&drive["driver"], &drive["group"], &drive["ready"]), (&"nvme".into(), &3.into(), &false.into()));
    let bridges = functions.iter().filter(|one| one["class"] == "060400");
    assert!(bridges.clone().count() == 5 && bridges.clone().all(|one| one["uses"].as_array().unwrap().is_empty()));
    assert!(drive["in_the_way"].as_str().unwrap().contains("driver_override"), "{drive}");
    assert_eq!(drive["id"], "144d:a80a");
    assert_eq!(json_of(&["vfio", "list", "--schema"], 0)["title"], "VfioListDocument");
}

/// Whoever measures mappings has to know which of the two was measured.
#[test]
fn the_list_tells_how_the_module_of_type1_is_set_and_what_it_costs() {
    let folder = machine();
    let root = root(&folder);
    assert_eq!(json_of(&["vfio", "list", "--json", "--sysfs-root", &root], 0)["type1"], serde_json::Value::Null);
    let parameters = folder.path().join("sys/module/vfio_iommu_type1/parameters");
    fs::create_dir_all(&parameters).unwrap();
    fs::write(parameters.join("dma_entry_limit"), "65535\n").unwrap();
    for (word, huge_pages, noted) in [("N\n", true, false), ("Y\n", false, true)] {
        fs::write(parameters.join("disable_hugepages"), word).unwrap();
        let type1 = &json_of(&["vfio", "list", "--json", "--sysfs-root", &root], 0)["type1"];
        assert_eq!((&type1["huge_pages"], &type1["entry_limit"]), (&huge_pages.into(), &65535.into()));
        assert!(type1["unsafe_interrupts"].is_null(), "{type1}");
        let output = peerdma(&["vfio", "list", "--sysfs-root", &root]);
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(said.contains("echo N > /sys/module/vfio_iommu_type1"), noted, "{said}");
    }
}

#[test]
fn an_archive_of_the_tree_lists_the_same() {
    let folder = machine();
    let archive = folder.join("copy.tar");
    let packed =
        std::process::Command::new("tar").args(["-C", &root(&folder), "-cf", &archive, "sys", "proc"]).status();
    assert!(packed.unwrap().success());
    let [of_tree, of_archive] =
        [root(&folder), archive].map(|path| json_of(&["vfio", "list", "--json", "--all", "--from", &path], 0));
    for (one, other) in of_tree["functions"].as_array().unwrap().iter().zip(of_archive["functions"].as_array().unwrap())
    {
        for what in ["address", "id", "class", "driver", "group", "neighbours", "reset_methods", "in_the_way"] {
            assert_eq!(one[what], other[what], "{what}");
        }
        // What an archive is not read for is not said not to be there.
        let told = other["uses"] == one["uses"] || other["unseen"].as_array().is_some_and(|unseen| !unseen.is_empty());
        assert!(told, "{other}");
    }
}

#[test]
fn binding_says_what_it_would_write_and_writes_nothing() {
    let folder = machine();
    let text = stdout_of(&["vfio", "bind", "05:00.0", "--sysfs-root", &root(&folder)], 0);
    for line in [
        "would be done:",
        "  echo vfio-pci > /sys/bus/pci/devices/0000:05:00.0/driver_override",
        "  echo 0000:05:00.0 > /sys/bus/pci/drivers_probe",
        "nothing was changed; --yes does it",
    ] {
        assert!(text.lines().any(|said| said == line), "{line}: {text}");
    }
    assert!(!Path::new(&folder.join("sys/bus/pci/drivers_probe")).exists());
}

#[test]
fn what_somebody_uses_is_refused_unless_forced() {
    let folder = machine();
    for (device, words) in [("03:00.0", "mounted at /home"), ("04:00.0", "enx00aabbccddee is up")] {
        let text = stdout_of(&["vfio", "bind", device, "--sysfs-root", &root(&folder)], 1);
        assert!(text.contains("in the way") && text.contains(words) && text.contains("--force"), "{text}");
        let forced = stdout_of(&["vfio", "bind", device, "--force", "--sysfs-root", &root(&folder)], 0);
        assert!(forced.contains("forced: ") && forced.contains("/unbind"), "{forced}");
        let reset = stdout_of(&["vfio", "reset", device, "--sysfs-root", &root(&folder)], 1);
        assert!(reset.contains(words) && reset.contains("flr bus"), "{reset}");
    }
    let document = json_of(&["vfio", "bind", "03:00.0", "--json", "--sysfs-root", &root(&folder)], 1);
    assert_eq!((&document["done"], &document["obstacles"][0]["yields_to_force"]), (&false.into(), &true.into()));
    let bridge = stdout_of(&["vfio", "bind", "00:01.0", "--force", "--sysfs-root", &root(&folder)], 1);
    assert!(bridge.contains("is a bridge"), "{bridge}");
}

#[test]
fn a_bound_function_goes_back_and_is_reset_by_vfio() {
    let folder = machine();
    let device = folder.path().join("sys/devices/pci0000:00/0000:00:02.0/0000:05:00.0");
    symlink("../../../../bus/pci/drivers/vfio-pci", device.join("driver")).unwrap();
    let bound = stdout_of(&["vfio", "bind", "05:00.0", "--sysfs-root", &root(&folder)], 0);
    assert!(bound.contains("bound to vfio-pci already"), "{bound}");
    let text = stdout_of(&["vfio", "unbind", "05:00.0", "--sysfs-root", &root(&folder)], 0);
    assert!(text.contains("echo 0000:05:00.0 > /sys/bus/pci/drivers/vfio-pci/unbind"), "{text}");
    let text = stdout_of(&["vfio", "reset", "05:00.0", "--sysfs-root", &root(&folder)], 0);
    assert!(
        text.contains("open /dev/vfio/vfio and /dev/vfio/5") && text.contains("VFIO_DEVICE_RESET (flr bus)"),
        "{text}"
    );
    let not_bound = stdout_of(&["vfio", "unbind", "03:00.0", "--sysfs-root", &root(&folder)], 1);
    assert!(not_bound.contains("is not bound to vfio-pci but to nvme"), "{not_bound}");
}

#[test]
fn wrong_use_is_told_with_what_would_be_right() {
    let folder = machine();
    for (arguments, code, words) in [
        (&["vfio"][..], 2, "Usage"),
        (&["vfio", "bind"], 2, "BDF"),
        (&["vfio", "bind", "nvme0"], 2, "give an address"),
        (&["vfio", "bind", "05:00.0", "--yes", "--sysfs-root", "x"], 2, "cannot be used with"),
        (
            &["vfio", "list", "--from", "/nowhere"],
            4,
            "cannot read /nowhere: No such file or directory (os error 2); name a file that is there",
        ),
    ] {
        let output = peerdma(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    let absent = peerdma(&["vfio", "bind", "ff:00.0", "--sysfs-root", &root(&folder)]);
    assert_eq!(absent.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&absent.stderr).contains("there is no PCI function 0000:ff:00.0"));
}
