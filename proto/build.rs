//! Compiles lockstep/v1 with protox: no protoc to install.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "lockstep/v1/barrier.proto",
        "lockstep/v1/agent.proto",
        "lockstep/v1/operator.proto",
    ];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(
        out.join("descriptors.bin"),
        prost::Message::encode_to_vec(&descriptors),
    )?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
