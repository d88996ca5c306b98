//! A workload with the shape of a Windows boot, made up: an NTFS volume, and what boots ask of it.
//!
//! There is no image of Windows to be had, so this is none and **no recording**: it is called "Windows-like (made up)"
//! wherever a figure of it stands. *What is real*: the file system, made and filled by ntfs-3g's tools (clusters of 4 KiB,
//! its `$MFT`, `$LogFile`, `$Bitmap` and directory), and where each file lies on it, read back from the volume itself.
//! *What is made up*: the files ([`files`]) and what they hold, which compresses about as programs do, and when a boot reads
//! which part of them ([`boot`]).
//!
//! *Where the shape comes from*:
//! - "Windows Internals" (Russinovich, Solomon, Ionescu; 6th edition, part 2, chapter 10, "Logical prefetcher"): the boot is
//!   traced from the system's start to 30 s after the shell's; at the next one the prefetcher reads the `$MFT` records first,
//!   then the directories, then the pages of file after file, in batches in the order of files and offsets, before they are
//!   asked for. It relies on "the high correlation in accesses across boots". Editions for servers have it switched off.
//! - M. Renoden, "Windows Enterprise Client Boot and Logon Optimization, part 4" (Microsoft, 2015): ReadyBoot keeps a plan
//!   made of past boots and reads ahead of what is asked for by up to 500 requests.
//! - ThinScale, "ThinIO facts and figures, part 2" (2014): Windows 7 to the logon screen, until all services have started,
//!   reads 500 to 600 MB and writes 20 to 30 MB.
//! - H. Klein, "Remarks on Windows Disk and File IO During System Boot" (2013): 62,000 requests in 330 s of a laptop with
//!   Windows 7, of which 16 % are writes.
//! - For how far programs compress: LZX of Windows 10 takes 40 to 60 % off ("LZX, new Windows 10 NTFS compression
//!   algorithm", theITBros).
//!
//! *Where it differs*, so that an image is made in a minute and a trace has 200 KB: as many bytes in a tenth of the requests
//! (no scanner, no indexer, no domain), and what the boot does not read is some hundred MB where Windows has many thousand.
//! ntfs-3g's tools make no folders without mounting, so all files lie in the root.

pub mod boot;
pub mod files;
pub mod show;
pub mod volume;
