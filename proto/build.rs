//! Compiles `proto/*.proto` without `protoc`: protox reads them, prost and tonic write the Rust.

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;

const FILES: [&str; 6] = [
    "auth.proto",
    "kv.proto",
    "peer.proto",
    "rpc.proto",
    "v3election.proto",
    "v3lock.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;

    // `Bytes` fields share the buffer that a request arrived in: keys and values are not copied.
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
