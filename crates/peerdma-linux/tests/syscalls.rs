//! docs/syscalls.md and the code name the same ioctls.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

/// What each number in `src/sys` is called by the kernel: the file, the constant, the name.
const NAMES: [(&str, &str, &str); 56] = [
    ("vfio.rs", "GET_API_VERSION", "VFIO_GET_API_VERSION"),
    ("vfio.rs", "CHECK_EXTENSION", "VFIO_CHECK_EXTENSION"),
    ("vfio.rs", "SET_IOMMU", "VFIO_SET_IOMMU"),
    ("vfio.rs", "GROUP_GET_STATUS", "VFIO_GROUP_GET_STATUS"),
    ("vfio.rs", "GROUP_SET_CONTAINER", "VFIO_GROUP_SET_CONTAINER"),
    ("vfio.rs", "GROUP_GET_DEVICE_FD", "VFIO_GROUP_GET_DEVICE_FD"),
    ("vfio.rs", "DEVICE_GET_INFO", "VFIO_DEVICE_GET_INFO"),
    ("vfio.rs", "DEVICE_GET_REGION_INFO", "VFIO_DEVICE_GET_REGION_INFO"),
    ("vfio.rs", "DEVICE_RESET", "VFIO_DEVICE_RESET"),
    ("vfio.rs", "DEVICE_FEATURE", "VFIO_DEVICE_FEATURE"),
    ("vfio.rs", "DEVICE_BIND_IOMMUFD", "VFIO_DEVICE_BIND_IOMMUFD"),
    ("vfio.rs", "DEVICE_ATTACH_IOMMUFD_PT", "VFIO_DEVICE_ATTACH_IOMMUFD_PT"),
    ("vfio.rs", "IOMMU_GET_INFO", "VFIO_IOMMU_GET_INFO"),
    ("vfio.rs", "IOMMU_MAP_DMA", "VFIO_IOMMU_MAP_DMA"),
    ("vfio.rs", "IOMMU_UNMAP_DMA", "VFIO_IOMMU_UNMAP_DMA"),
    ("vfio/interrupts.rs", "GET_INFO", "VFIO_DEVICE_GET_IRQ_INFO"),
    ("vfio/interrupts.rs", "SET", "VFIO_DEVICE_SET_IRQS"),
    ("vfio/whole.rs", "GET_HOT_RESET_INFO", "VFIO_DEVICE_GET_PCI_HOT_RESET_INFO"),
    ("vfio/whole.rs", "HOT_RESET", "VFIO_DEVICE_PCI_HOT_RESET"),
    ("iommufd.rs", "DESTROY", "IOMMU_DESTROY"),
    ("iommufd.rs", "IOAS_ALLOC", "IOMMU_IOAS_ALLOC"),
    ("iommufd.rs", "IOAS_IOVA_RANGES", "IOMMU_IOAS_IOVA_RANGES"),
    ("iommufd.rs", "IOAS_MAP", "IOMMU_IOAS_MAP"),
    ("iommufd.rs", "IOAS_MAP_FILE", "IOMMU_IOAS_MAP_FILE"),
    ("iommufd.rs", "IOAS_UNMAP", "IOMMU_IOAS_UNMAP"),
    ("iommufd.rs", "IOAS_COPY", "IOMMU_IOAS_COPY"),
    ("iommufd.rs", "OPTION", "IOMMU_OPTION"),
    ("uffd.rs", "API", "UFFDIO_API"),
    ("uffd.rs", "REGISTER", "UFFDIO_REGISTER"),
    ("uffd.rs", "UNREGISTER", "UFFDIO_UNREGISTER"),
    ("uffd.rs", "WAKE", "UFFDIO_WAKE"),
    ("uffd.rs", "COPY", "UFFDIO_COPY"),
    ("uffd.rs", "ZEROPAGE", "UFFDIO_ZEROPAGE"),
    ("procmap.rs", "PROCMAP_QUERY", "PROCMAP_QUERY"),
    ("kvm.rs", "GET_API_VERSION", "KVM_GET_API_VERSION"),
    ("kvm.rs", "CREATE_VM", "KVM_CREATE_VM"),
    ("kvm.rs", "CHECK_EXTENSION", "KVM_CHECK_EXTENSION"),
    ("kvm.rs", "VCPU_MMAP_SIZE", "KVM_GET_VCPU_MMAP_SIZE"),
    ("kvm.rs", "CREATE_VCPU", "KVM_CREATE_VCPU"),
    ("kvm.rs", "SET_REGION", "KVM_SET_USER_MEMORY_REGION"),
    ("kvm.rs", "SET_TSS", "KVM_SET_TSS_ADDR"),
    ("kvm.rs", "SET_REGION2", "KVM_SET_USER_MEMORY_REGION2"),
    ("kvm.rs", "RUN", "KVM_RUN"),
    ("kvm.rs", "GET_REGS", "KVM_GET_REGS"),
    ("kvm.rs", "SET_REGS", "KVM_SET_REGS"),
    ("kvm.rs", "GET_SREGS", "KVM_GET_SREGS"),
    ("kvm.rs", "SET_SREGS", "KVM_SET_SREGS"),
    ("kvm.rs", "CREATE_GUEST_MEMFD", "KVM_CREATE_GUEST_MEMFD"),
    ("dma_buf.rs", "SYNC", "DMA_BUF_IOCTL_SYNC"),
    ("dma_buf.rs", "SET_NAME", "DMA_BUF_SET_NAME_B"),
    ("dma_buf.rs", "EXPORT_FENCES", "DMA_BUF_IOCTL_EXPORT_SYNC_FILE"),
    ("dma_buf.rs", "IMPORT_FENCES", "DMA_BUF_IOCTL_IMPORT_SYNC_FILE"),
    ("dma_buf.rs", "MERGE", "SYNC_IOC_MERGE"),
    ("dma_buf.rs", "FILE_INFO", "SYNC_IOC_FILE_INFO"),
    ("dma_buf.rs", "UDMABUF_LIST", "UDMABUF_CREATE_LIST"),
    ("dma_buf.rs", "HEAP_ALLOC", "DMA_HEAP_IOCTL_ALLOC"),
];

/// Constants of ioctl numbers in a folder; what only checks and tests call is left out.
fn numbers(folder: &Path, prefix: &str, found: &mut BTreeSet<(String, String)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            if name != "raw" {
                numbers(&entry.path(), &format!("{name}/"), found)?;
            }
            continue;
        }
        if matches!(name.as_str(), "raw.rs" | "disturb.rs") {
            continue;
        }
        let text = fs::read_to_string(entry.path())?;
        let constants = text.lines().filter_map(|line| line.trim().split_once("const ")?.1.split_once(": Opcode"));
        found.extend(constants.map(|(constant, _)| (name.clone(), constant.to_string())));
    }
    Ok(())
}

#[test]
fn the_document_lists_the_ioctls_that_the_code_makes_and_no_others() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    numbers(&root.join("src/sys"), "", &mut found).unwrap();
    let named: BTreeSet<_> = NAMES.iter().map(|(file, constant, _)| (file.to_string(), constant.to_string())).collect();
    assert_eq!(found, named, "each ioctl of src/sys has its kernel's name here");

    let document = fs::read_to_string(root.join("../../docs/syscalls.md")).unwrap();
    let table = document.split("## What a filter does").next().unwrap();
    let words: BTreeSet<&str> = table.split('`').skip(1).step_by(2).collect();
    let is_ioctl = |word: &&str| {
        word.len() > 4
            && word.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_' || letter.is_ascii_digit())
    };
    let listed: BTreeSet<&str> = words.into_iter().filter(is_ioctl).collect();
    let called: BTreeSet<&str> = NAMES.iter().map(|(.., name)| *name).collect();
    assert_eq!(listed, called);
}
