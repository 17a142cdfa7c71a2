//! The HTTPS listener's key and certificate: made at `lab up`, never committed.

use anyhow::Result;
use std::fs;

/// Names the certificate is good for.
const NAMES: [&str; 3] = ["lab.sluice.dev", "*.lab.sluice.dev", "localhost"];

/// Writes a Secret `lab-tls` as YAML beside the quickstart, and the certificate alone for `curl --cacert`.
pub fn write() -> Result<()> {
    let mut names: Vec<String> = NAMES.map(str::to_owned).to_vec();
    names.extend([super::VIP_V4.to_owned(), super::VIP_V6.to_owned()]);
    let made = rcgen::generate_simple_self_signed(names)?;
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let indent = |pem: &str| pem.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: lab-tls\ntype: kubernetes.io/tls\nstringData:\n  \
         tls.crt: |\n{}  tls.key: |\n{}",
        indent(&certificate),
        indent(&key)
    );
    fs::write(super::place::state("lab-tls.yaml"), secret)?;
    fs::write(super::place::state("lab-tls.pem"), certificate)?;
    Ok(())
}
