//! Serves a raw image over NBD: `cargo run --release -p swarmdisk-host --example nbd_file -- IMAGE unix:PATH|HOST:PORT`.

use std::sync::Arc;
use swarmdisk_host::disk::FileDisk;
use swarmdisk_host::nbd::{NbdServer, ServerConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [image, listen] = &arguments[..] else { return Err("pass IMAGE and unix:PATH or HOST:PORT".into()) };
    let disk = Arc::new(FileDisk::open(image)?);
    let server = NbdServer::bind(&listen.parse()?, disk, ServerConfig::default()).await?;
    println!("ready {}", server.uri());
    let interrupted = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    server.run(interrupted).await;
    Ok(())
}
