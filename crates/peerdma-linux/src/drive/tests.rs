use super::*;
use crate::tree::Node;

/// A sysfs with one function, its driver, and what its controller's folder holds.
fn machine(driver: Option<&str>, state: &str, entries: &[&str]) -> Tree {
    let device = "sys/bus/pci/devices/0000:03:00.0";
    let mut nodes = vec![(format!("{device}/class"), Node::File(b"0x010802\n".to_vec()))];
    if let Some(driver) = driver {
        nodes.push((format!("{device}/driver"), Node::Link(format!("../../../bus/pci/drivers/{driver}"))));
        nodes.push((format!("{device}/nvme/nvme1/state"), Node::File(format!("{state}\n").into_bytes())));
    }
    let sizes = entries.iter().map(|name| (format!("{device}/nvme/nvme1/{name}/size"), Node::File(b"2048\n".to_vec())));
    nodes.extend(sizes);
    Tree::from_nodes(nodes.into_iter().collect())
}

fn find(tree: &Tree) -> Result<Disk, DriveError> {
    Disk::find(tree, "0000:03:00.0".parse().unwrap())
}

#[test]
fn the_first_disk_of_a_live_controller_is_found_with_its_size() {
    let disk = find(&machine(Some("nvme"), "live", &["nvme1n10", "nvme1n2", "nvme12n1", "hwmon2"])).unwrap();
    assert_eq!((disk.path(), disk.room()), (PathBuf::from("/dev/nvme1n2"), Bytes::new(1 << 20)));
}

#[test]
fn what_has_no_disk_of_its_own_says_what_to_do() {
    let refused = |tree: &Tree| find(tree).unwrap_err().to_string();
    let text = refused(&machine(Some("vfio-pci"), "live", &[]));
    assert!(text.contains("bound to vfio-pci, not to nvme"), "{text}");
    assert!(refused(&machine(None, "", &[])).contains("bound to no driver"));
    assert!(refused(&machine(Some("nvme"), "connecting", &["nvme1n1"])).contains("is not live"));
    assert!(refused(&machine(Some("nvme"), "live", &["hwmon2", "nvme1"])).contains("no disk"));
    let text = refused(&machine(Some("nvme"), "live", &["nvme1c1n1"]));
    assert!(text.contains("nvme1c1n1 is one way of several") && text.contains("multipath=N"), "{text}");
}
