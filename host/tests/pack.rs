//! Packing: formats, determinism, and that nothing is left of what failed.

mod common;

use common::{GO_ON, image_bytes, names, packed, skip, write_at};
use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use swarmdisk_core::format::manifest::Codec;
use swarmdisk_host::digest::to_hex;
use swarmdisk_host::image::ImageError;
use swarmdisk_host::pack::{PackError, PackOptions, pack};
use swarmdisk_host::store::Store;

fn read_all(store: &Store) -> Vec<u8> {
    let g = store.geometry();
    (0..g.chunk_count()).flat_map(|index| store.read_chunk(g.chunk(index).unwrap()).unwrap()).collect()
}

#[test]
fn what_is_packed_is_what_is_read() {
    let packed = packed(300);
    let store = Store::open_complete(&packed.swarm).unwrap();
    assert_eq!(store.image(), packed.report.image);
    assert!(store.is_complete());
    assert!(read_all(&store) == packed.bytes);
    assert_eq!(packed.report.chunk_count, 300);
    assert_eq!(packed.report.zero_chunk_count, 150);
    assert_eq!(packed.report.file_bytes, fs::metadata(&packed.swarm).unwrap().len());
    assert!(packed.report.payload_bytes < packed.bytes.len() as u64 / 4);
    #[cfg(unix)]
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&packed.swarm).unwrap().permissions()) & 0o600,
        0o600
    );
}

#[test]
fn equal_image_and_options_give_equal_bytes() {
    let packed = packed(300);
    let out = packed.dir.path().join("again.swarm");
    let mut options = PackOptions::new(&packed.raw, &out, &GO_ON);
    for threads in [1, 3] {
        options.threads = NonZeroUsize::new(threads);
        pack(&options, &|_, _| {}).unwrap();
        assert!(fs::read(&out).unwrap() == fs::read(&packed.swarm).unwrap(), "{threads} threads");
    }
    options.level = 1;
    assert_ne!(pack(&options, &|_, _| {}).unwrap().image, packed.report.image);
}

/// A fixed id: whoever changes it changes what `pack` makes of old images. Without a codec, so that zstd has no say.
#[test]
fn the_id_of_an_image_is_fixed() {
    let packed = packed(20);
    let out = packed.dir.path().join("none.swarm");
    let options = PackOptions { codec: Codec::None, ..PackOptions::new(&packed.raw, &out, &GO_ON) };
    let id = to_hex(&pack(&options, &|_, _| {}).unwrap().image);
    assert_eq!(id, "204fa45d5234bd19c3a0ed375299180f6f7a06a63561a5249b42257dec454fca");
}

/// Images that are damaged, or made by someone of ill will, are refused or packed, but nothing panics.
#[test]
fn damaged_qcow2_images_never_panic() {
    if Command::new("qemu-img").arg("--version").output().is_err() {
        return skip("qemu-img is not there (Debian: apt install qemu-utils)");
    }
    let packed = packed(8);
    let (image, out) = (packed.dir.path().join("image.qcow2"), packed.dir.path().join("other.swarm"));
    qemu_img(&["convert", "-f", "raw", "-O", "qcow2", "-c"], &[&packed.raw, &image]);
    let good = fs::read(&image).unwrap();
    // The header, then what is not zero of the tables.
    let tables = (512..good.len().min(5 << 16)).filter(|at| good[*at] != 0).step_by(7).take(300);
    // Not the size: a disk of many TiB is packed, and takes its time.
    for at in (0..24).chain(30..112).chain(tables) {
        for value in [good[at] ^ 0x80, good[at] ^ 1, 0xff] {
            let mut bad = good.clone();
            bad[at] = value;
            fs::write(&image, &bad).unwrap();
            let _ = pack(&PackOptions::new(&image, &out, &GO_ON), &|_, _| {});
        }
    }
}

#[test]
fn every_chunk_size_and_codec() {
    let packed = packed(20);
    let out = packed.dir.path().join("other.swarm");
    for chunk_shift in 14..=20 {
        for codec in [Codec::None, Codec::Zstd] {
            let options = PackOptions { chunk_shift, codec, ..PackOptions::new(&packed.raw, &out, &GO_ON) };
            pack(&options, &|_, _| {}).unwrap();
            assert!(read_all(&Store::open_complete(&out).unwrap()) == packed.bytes);
        }
    }
    for chunk_shift in [13, 21, 255] {
        let options = PackOptions { chunk_shift, ..PackOptions::new(&packed.raw, &out, &GO_ON) };
        assert!(matches!(pack(&options, &|_, _| {}), Err(PackError::Geometry { .. })));
    }
}

#[test]
fn holes_cost_nothing_and_read_as_zeros() {
    let dir = tempfile::tempdir().unwrap();
    let (raw, out) = (dir.path().join("sparse.raw"), dir.path().join("sparse.swarm"));
    let file = File::create(&raw).unwrap();
    file.set_len(64 << 30).unwrap();
    write_at(&raw, b"in the middle", 33 << 30);
    let report = pack(&PackOptions::new(&raw, &out, &GO_ON), &|_, _| {}).unwrap();
    assert_eq!(report.zero_chunk_count, report.chunk_count - 1);
    assert!(report.time.as_secs() < 20, "{report}");
    let store = Store::open_complete(&out).unwrap();
    let chunk = store.geometry().chunk_at(33 << 30).unwrap();
    assert_eq!(&store.read_chunk(chunk).unwrap()[..13], b"in the middle");
    file.set_len(5).unwrap();
    write_at(&raw, &[0; 5], 0);
    assert_eq!(pack(&PackOptions::new(&raw, &out, &GO_ON), &|_, _| {}).unwrap().payload_bytes, 0);
    assert_eq!(read_all(&Store::open_complete(&out).unwrap()), [0; 5]);
}

fn qemu_img(arguments: &[&str], paths: &[&Path]) {
    let output = Command::new("qemu-img").args(arguments).args(paths).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_format_gives_the_id_of_raw() {
    if Command::new("qemu-img").arg("--version").output().is_err() {
        return skip("qemu-img is not there (Debian: apt install qemu-utils)");
    }
    let packed = packed(304);
    let out = packed.dir.path().join("other.swarm");
    // Some formats round the disk up to whole MiB.
    File::options().write(true).open(&packed.raw).unwrap().set_len(19 << 20).unwrap();
    let expected = pack(&PackOptions::new(&packed.raw, &out, &GO_ON), &|_, _| {}).unwrap().image;
    for options in [
        "-O qcow2",
        "-O qcow2 -c",
        "-O qcow2 -c -o compression_type=zstd",
        "-O qcow2 -o compat=0.10",
        "-O qcow2 -o cluster_size=512,extended_l2=off",
        "-O vmdk",
        "-O vmdk -o subformat=streamOptimized",
        "-O vmdk -o subformat=monolithicFlat",
        "-O vmdk -o subformat=twoGbMaxExtentSparse",
        "-O vhdx",
        "-O vhdx -o subformat=fixed",
    ] {
        let dir = tempfile::tempdir_in(packed.dir.path()).unwrap();
        let image = dir.path().join("image.vmdk");
        let mut arguments = vec!["convert", "-f", "raw"];
        arguments.extend(options.split(' '));
        qemu_img(&arguments, &[&packed.raw, &image]);
        let options_pack = PackOptions::new(&image, &out, &GO_ON);
        let report = pack(&options_pack, &|_, _| {}).unwrap_or_else(|error| panic!("{options}: {error}"));
        assert_eq!(report.image, expected, "{options}");
    }
    assert_eq!(names(packed.dir.path()), ["image.raw", "image.swarm", "other.swarm"]);
}

#[test]
fn no_other_file_is_read_on_an_images_behalf() {
    if Command::new("qemu-img").arg("--version").output().is_err() {
        return skip("qemu-img is not there (Debian: apt install qemu-utils)");
    }
    let packed = packed(4);
    let (image, out) = (packed.dir.path().join("image"), packed.dir.path().join("other.swarm"));
    let refused = |what: &str| {
        let error = pack(&PackOptions::new(&image, &out, &GO_ON), &|_, _| {}).unwrap_err();
        assert!(matches!(error, PackError::Image(ImageError::NotAlone { .. })), "{what}: {error}");
    };
    let base = packed.dir.path().join("base");
    for format in ["qcow2", "vmdk"] {
        qemu_img(&["create", "-f", format], &[&base, Path::new("1M")]);
        qemu_img(&["create", "-f", format, "-F", format, "-b"], &[&base, &image]);
        refused(format);
    }
    let data = packed.dir.path().join("data");
    qemu_img(&["create", "-f", "qcow2", "-o", &format!("data_file={}", data.display())], &[&image, Path::new("1M")]);
    refused("data file");
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("secret"), vec![7; 1 << 20]).unwrap();
    let descriptor = format!(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\
         RW 2048 FLAT \"{}/secret\" 0\n",
        elsewhere.path().display()
    );
    fs::write(&image, descriptor).unwrap();
    refused("extent");
}

#[test]
fn without_qemu_img_the_error_names_the_package() {
    const CHILD: &str = "SWARMDISK_TEST_NO_QEMU_IMG";
    if let Ok(folder) = std::env::var(CHILD) {
        let (image, out) = (Path::new(&folder).join("x.vhdx"), Path::new(&folder).join("x.swarm"));
        fs::write(&image, b"vhdxfile and more").unwrap();
        let error = pack(&PackOptions::new(&image, &out, &GO_ON), &|_, _| {}).unwrap_err();
        assert!(matches!(error, PackError::Image(ImageError::ToolMissing { .. })), "{error}");
        assert!(error.to_string().contains("apt install qemu-utils"), "{error}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "without_qemu_img_the_error_names_the_package"]);
    let output = command.env(CHILD, dir.path()).env("PATH", dir.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(names(dir.path()), ["x.vhdx"]);
}

#[test]
fn nothing_is_left_of_a_cancelled_pack() {
    let packed = packed(300);
    let out = packed.dir.path().join("other.swarm");
    let cancel = Arc::new(AtomicBool::new(false));
    let options = PackOptions { threads: NonZeroUsize::new(1), ..PackOptions::new(&packed.raw, &out, &cancel) };
    let error = pack(&options, &|done, _| cancel.store(done > 4 << 20, Relaxed)).unwrap_err();
    assert!(matches!(error, PackError::Cancelled));
    assert_eq!(names(packed.dir.path()), ["image.raw", "image.swarm"]);
}

#[test]
fn an_image_that_ends_early_fails_whole() {
    let packed = packed(300);
    let out = packed.dir.path().join("other.swarm");
    let raw = File::options().write(true).open(&packed.raw).unwrap();
    let options = PackOptions { threads: NonZeroUsize::new(1), ..PackOptions::new(&packed.raw, &out, &GO_ON) };
    let error = pack(&options, &|_, _| raw.set_len(10 << 20).unwrap()).unwrap_err();
    assert!(matches!(error, PackError::Image(ImageError::Io { .. })), "{error}");
    assert_eq!(names(packed.dir.path()), ["image.raw", "image.swarm"]);
}

#[test]
fn wrong_use_is_refused() {
    let packed = packed(1);
    let same = PackOptions::new(&packed.raw, &packed.raw, &GO_ON);
    assert!(matches!(pack(&same, &|_, _| {}), Err(PackError::SameFile { .. })));
    let nowhere = packed.dir.path().join("no/such/dir.swarm");
    assert!(matches!(pack(&PackOptions::new(&packed.raw, &nowhere, &GO_ON), &|_, _| {}), Err(PackError::Out { .. })));
    let empty = packed.dir.path().join("empty");
    fs::write(&empty, []).unwrap();
    let error = pack(&PackOptions::new(&empty, &packed.swarm, &GO_ON), &|_, _| {}).unwrap_err();
    assert!(matches!(error, PackError::Image(ImageError::Empty { .. })));
    let options = PackOptions { level: 23, ..PackOptions::new(&packed.raw, &packed.swarm, &GO_ON) };
    assert!(matches!(pack(&options, &|_, _| {}), Err(PackError::Level(23))));
}

#[test]
fn progress_grows_to_the_whole() {
    let packed = packed(40);
    let seen = Mutex::new(Vec::new());
    pack(&PackOptions::new(&packed.raw, &packed.swarm, &GO_ON), &|done, total| {
        seen.lock().unwrap().push((done, total));
    })
    .unwrap();
    let seen = seen.into_inner().unwrap();
    let total = image_bytes(40).len() as u64;
    assert!(seen.is_sorted() && seen.last() == Some(&(total, total)));
}
