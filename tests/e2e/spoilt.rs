//! Hundreds of spoilt manifests thrown at a gateway that serves: each is told where it is wrong and how to mend it, and
//! nobody else notices.

use anyhow::{Context, Result, ensure};
use gateway_tests::gateway::{Gateway, log_tail};
use gateway_tests::lab::Lab;
use gateway_tests::shell::{client_text, wait_for};
use serde_json::{Value as Json, json};
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
/// What the gateway's memory may grow by beyond what the largest mutant took.
const GROWN_KIB_MAX: u64 = 48 << 10;
/// One of the first, so that what it takes is no growth afterwards.
const LARGE_AT: usize = 8;

/// What was done, and the text of the file.
struct Mutant {
    what: String,
    text: String,
}

pub fn mutants(datapath: &str) -> Result<()> {
    let folder = Lab::file("mutants");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder)?;
    let quickstart = std::fs::read_to_string(Lab::file("quickstart.yaml"))?;
    let more = format!("--file={}", folder.display());
    let gateway = Gateway::start_with(datapath, &quickstart, &[&more])?;
    let mutants = all()?;
    ensure!(mutants.len() >= 200, "{} mutants are too few", mutants.len());
    let body = Lab::file("request.bin");
    std::fs::write(&body, [0, 0, 0, 0, 7, 0x0a, 5, b'h', b'e', b'l', b'l', b'o'])?;
    let over = AtomicBool::new(false);
    let (told, served) = std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let mut served = 0;
            while !over.load(Ordering::Relaxed) {
                served += load(&body, "198.18.0.10:50052")?;
                served += load(&body, "198.18.0.10:50051")?;
            }
            anyhow::Ok(served)
        });
        let told = throw(&gateway, &folder, &mutants);
        over.store(true, Ordering::Relaxed);
        (told, traffic.join())
    });
    let (first, last) = told?;
    let served = served.ok().context("the witness panicked")??;
    println!(
        "     {datapath}: {} mutants, each told; {served} requests meanwhile, none failed; memory at most {first} KiB, then {last} KiB",
        mutants.len()
    );
    ensure!(last <= first + GROWN_KIB_MAX, "memory grew from {first} to {last} KiB");
    ensure!(served >= 1000, "{served} requests are no witness");
    // Once the last is gone nothing is left of them.
    let file = folder.join(name(mutants.len() - 1));
    std::fs::remove_file(&file)?;
    wait_for(
        "what was spoilt is forgotten",
        LIMIT,
        || Ok(lines(&gateway)?.is_empty()),
    )
    .with_context(log_tail)
}

fn name(number: usize) -> String {
    format!("m{number:03}.yaml")
}

/// One after the other; the most memory until the first few are over, the large one among them, and what is resident after
/// all, in KiB.
fn throw(gateway: &Gateway, folder: &Path, mutants: &[Mutant]) -> Result<(u64, u64)> {
    let (mut first, mut untold) = (0, Vec::new());
    for (number, mutant) in mutants.iter().enumerate() {
        let beside = folder.join("next");
        std::fs::write(&beside, &mutant.text)?;
        std::fs::rename(&beside, folder.join(name(number)))?;
        if let Some(before) = number.checked_sub(1) {
            std::fs::remove_file(folder.join(name(before)))?;
        }
        let place = format!("/mutants/{}:", name(number));
        let is_told = wait_for(&mutant.what, LIMIT, || {
            let mut lines = lines(gateway)?.into_iter();
            Ok(lines.any(|line| line.contains(&place) && line.contains("(mend: ")))
        });
        if let Err(error) = is_told {
            let told = lines(gateway)?;
            untold.push(format!("{error:#}: {told:#?}\nof {}", short(&mutant.text)));
        }
        ensure!(untold.len() < 4, "{}\n{}", untold.join("\n"), log_tail());
        if number == 2 * LARGE_AT {
            first = memory(gateway.pid(), "VmHWM:")?;
        }
    }
    ensure!(untold.is_empty(), "{}\n{}", untold.join("\n"), log_tail());
    Ok((first, memory(gateway.pid(), "VmRSS:")?))
}

fn short(text: &str) -> &str {
    text.get(..500).unwrap_or(text)
}

/// What the gateway says of the folder's files.
fn lines(gateway: &Gateway) -> Result<Vec<String>> {
    let status = gateway.json("/api/v1/status")?;
    let lines = status["diagnostics"].as_array().cloned().unwrap_or_default();
    let lines = lines.iter().filter_map(|line| line.as_str());
    Ok(lines
        .filter(|line| line.contains("/mutants/"))
        .map(str::to_owned)
        .collect())
}

/// Requests over connections of their own; every one is answered as it should be.
fn load(body: &Path, target: &str) -> Result<u64> {
    let (data, url) = (
        body.display().to_string(),
        format!("http://{target}/sluice.demo.v1.Echo/Say"),
    );
    let mut args = vec!["-n", "200", "-c", "4", "-m", "4", "-d", &data];
    args.extend(["-H", "content-type: application/grpc", "-H", "te: trailers", &url]);
    let text = client_text("h2load", &args, LIMIT)?;
    let whole = text.contains("200 succeeded, 0 failed, 0 errored, 0 timeout") && text.contains("200 2xx");
    ensure!(whole, "{target}: {text}\n{}", log_tail());
    Ok(200)
}

/// KiB.
fn memory(pid: u32, field: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    Ok(line.context("memory")?.trim().trim_end_matches(" kB").parse()?)
}

fn all() -> Result<Vec<Mutant>> {
    let mut found = Vec::new();
    for base in bases() {
        let kind = base["kind"].as_str().unwrap_or_default().to_owned();
        let mut add = |what: &str, text: String| {
            found.push(Mutant {
                what: format!("{kind}: {what}"),
                text,
            });
        };
        for (what, json) in objects(&base) {
            add(&what, json.to_string());
        }
        for (what, text) in texts(&base.to_string()) {
            add(what, text);
        }
    }
    for (base, pointer, value) in fields() {
        let mut json = bases().swap_remove(base);
        let what = format!("{}: {pointer} is {value:.60}", json["kind"]);
        *json.pointer_mut(pointer).with_context(|| what.clone())? = value;
        let mut text = json.to_string();
        if json["kind"] == "EndpointSlice" {
            // Nobody looks at endpoints that nothing is sent to.
            let mut route = bases().swap_remove(0);
            route["spec"]["rules"][0]["backendRefs"] = json!([{"name": "spoilt", "port": 80}]);
            let _ = write!(text, "\n---\n{}\n---\n{route}", bases()[4]);
        }
        found.push(Mutant { what, text });
    }
    found.extend(certificates()?);
    let mut large = bases().swap_remove(0);
    large["metadata"]["annotations"] = json!({"a": "x".repeat(10 << 20)});
    found.insert(
        LARGE_AT,
        Mutant {
            what: "10 MB".to_owned(),
            text: large.to_string(),
        },
    );
    Ok(found)
}

/// Valid objects beside those that serve, in the order that [`fields`] counts them in.
fn bases() -> Vec<Json> {
    const API: &str = "gateway.networking.k8s.io/v1";
    let meta = json!({"name": "spoilt"});
    let parent = |section: &str| json!([{"name": "lab", "sectionName": section}]);
    let backends = json!([{"name": "echo", "port": 50051}]);
    let of = |kind: &str, spec: Json| json!({"apiVersion": API, "kind": kind, "metadata": meta, "spec": spec});
    vec![
        of(
            "HTTPRoute",
            json!({"parentRefs": parent("http"), "hostnames": ["spoilt.example"],
                   "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/spoilt"}, "method": "GET"}], "timeouts": {"request": "1s"},
                              "filters": [{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "echo", "port": 50051}}}], "backendRefs": backends}]}),
        ),
        of(
            "GRPCRoute",
            json!({"parentRefs": parent("l7"), "hostnames": ["spoilt.example"],
                   "rules": [{"matches": [{"method": {"type": "Exact", "service": "spoilt.Service", "method": "Say"}}], "backendRefs": backends}]}),
        ),
        of(
            "TCPRoute",
            json!({"parentRefs": parent("l4"), "rules": [{"backendRefs": backends}]}),
        ),
        of(
            "Gateway",
            json!({"gatewayClassName": "sluice", "addresses": [{"type": "IPAddress", "value": "198.18.0.10"}],
                   "listeners": [{"name": "spoilt", "port": 9443, "protocol": "HTTP", "hostname": "spoilt.example"}]}),
        ),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": [{"port": 80, "protocol": "TCP"}]}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "spoilt", "labels": {"kubernetes.io/service-name": "spoilt"}},
               "addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": ["10.9.9.9"]}]}),
        of(
            "ReferenceGrant",
            json!({"from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "spoilt"}], "to": [{"group": "", "kind": "Service"}]}),
        ),
        of(
            "BackendTLSPolicy",
            json!({"targetRefs": [{"group": "", "kind": "Service", "name": "nobody"}], "validation": {"hostname": "spoilt.example", "wellKnownCACertificates": "System"}}),
        ),
    ]
}

/// What can be wrong with any object.
fn objects(base: &Json) -> Vec<(String, Json)> {
    let body = if base.get("spec").is_some() {
        "/spec"
    } else {
        "/endpoints"
    };
    let mut deep = json!(1);
    (0..100).for_each(|_| deep = json!([deep.take()]));
    let rows: [(&str, &str, Json); 15] = [
        (
            "kind misspelled",
            "/kind",
            json!(format!("{}s", base["kind"].as_str().unwrap_or_default())),
        ),
        (
            "version that never was",
            "/apiVersion",
            json!(base["apiVersion"].as_str().unwrap_or_default().replace("v1", "v9")),
        ),
        ("no kind", "/kind", Json::Null),
        ("no version", "/apiVersion", Json::Null),
        ("kind of another type", "/kind", json!(["Gateway"])),
        ("empty name", "/metadata/name", json!("")),
        ("name of another type", "/metadata/name", json!(["a"])),
        ("name that is none", "/metadata/name", json!("No Name!")),
        ("metadata a text", "/metadata", json!("spoilt")),
        (
            "labels of another type",
            "/metadata",
            json!({"name": "spoilt", "labels": [1]}),
        ),
        (
            "annotations of another type",
            "/metadata",
            json!({"name": "spoilt", "annotations": {"a": {"b": 1}}}),
        ),
        (
            "annotation of ours misspelled",
            "/metadata",
            json!({"name": "spoilt", "annotations": {"sluice.dev/plain": "http"}}),
        ),
        ("body a text", body, json!("text")),
        ("unknown field", "/metadata", json!({"name": "spoilt", "nonsense": 1})),
        ("nested deeply", "/metadata", json!({"name": "spoilt", "deep": deep})),
    ];
    let rows = rows.into_iter().map(|(what, pointer, value)| {
        let mut json = base.clone();
        if let Some(at) = json.pointer_mut(pointer) {
            *at = value;
        }
        (what.to_owned(), json)
    });
    rows.collect()
}

/// What can be wrong with any text.
fn texts(plain: &str) -> Vec<(&'static str, String)> {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..12 {
        let _ = writeln!(bomb, "a{n}: &a{n} [{}]", vec![format!("*a{}", n - 1); 10].join(", "));
    }
    vec![
        ("cut off", plain[..plain.len() / 2].to_owned()),
        ("a key twice", plain.replacen("{\"", "{\"kind\": \"Again\", \"", 1)),
        ("NUL bytes", plain.replacen("metadata", "meta\u{0}data", 1)),
        ("alias bomb", format!("{bomb}object: {plain}")),
        ("alias of itself", format!("a: &a [*a]\nobject: {plain}")),
        ("twice", format!("{plain}\n---\n{plain}")),
    ]
}

/// Values that do not fit: which of [`bases`], where, and what stands there.
fn fields() -> Vec<(usize, &'static str, Json)> {
    let (rule, backend) = ("/spec/rules/0", "/spec/rules/0/backendRefs/0");
    let pattern = |pattern: &str| json!({"type": "RegularExpression", "value": pattern});
    let to = |name: &str| json!([{"name": name, "port": 80}]);
    let many: Vec<Json> = (0..5_000)
        .map(|n| json!({"path": {"value": format!("/{n}")}}))
        .collect();
    let mut found = vec![
        (0, "/spec/parentRefs/0/name", json!("nobody")),
        (0, "/spec/parentRefs/0/sectionName", json!("nothing")),
        (0, "/spec/parentRefs/0", json!({"kind": "HTTPRoute", "name": "spoilt"})),
        (
            0,
            "/spec/parentRefs/0",
            json!({"name": "lab", "namespace": "elsewhere"}),
        ),
        (0, "/spec/hostnames/0", json!("exa mple")),
        (0, "/spec/hostnames/0", json!("*.*.example")),
        (0, "/spec/hostnames/0", json!("198.18.0.10")),
        (0, "/spec/rules", json!("none")),
        (0, rule, json!({"matches": many, "backendRefs": to("echo")})),
        (
            0,
            rule,
            json!({"filters": [{"type": "ExtensionRef", "extensionRef": {"group": "a.example", "kind": "A", "name": "a"}}]}),
        ),
        (0, "/spec/rules/0/filters/0/type", json!("Nothing")),
        (
            0,
            "/spec/rules/0/filters/0/requestMirror/backendRef",
            json!({"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "spoilt"}),
        ),
        (
            0,
            "/spec/rules/0/filters/0",
            json!({"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplaceFullPath", "value": "a b"}}}),
        ),
        (
            0,
            "/spec/rules/0/filters/0",
            json!({"type": "RequestRedirect", "requestRedirect": {"statusCode": 999}}),
        ),
        (0, "/spec/rules/0/timeouts/request", json!("soon")),
        (0, "/spec/rules/0/timeouts/request", json!("99999999h")),
        (0, "/spec/rules/0/matches/0/method", json!("FLY")),
        (0, "/spec/rules/0/matches/0/path/value", json!("no-slash")),
        (0, "/spec/rules/0/matches/0/path/value", json!("/a b")),
        (0, "/spec/rules/0/matches/0/path/type", json!("Nothing")),
        (0, "/spec/rules/0/backendRefs", to("nobody")),
        (
            0,
            backend,
            json!({"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "spoilt"}),
        ),
        (
            0,
            backend,
            json!({"name": "echo", "namespace": "elsewhere", "port": 50051}),
        ),
        (0, backend, json!({"name": "echo"})),
        (0, backend, json!({"name": "echo", "port": 65_536})),
        (0, backend, json!({"name": "echo", "port": 50051, "weight": -1})),
        (0, backend, json!({"name": "echo", "port": 50051, "weight": 1_000_001})),
        (1, "/spec/rules/0/matches/0/method/service", json!("")),
        (
            1,
            "/spec/rules/0/matches/0/method",
            json!({"type": "RegularExpression", "service": "(", "method": "a"}),
        ),
        (1, backend, json!({"name": "nobody", "port": 1})),
        (2, "/spec/parentRefs/0", json!({"name": "lab", "port": "many"})),
        (2, backend, json!({"name": "nobody", "port": 1})),
        (3, "/spec/gatewayClassName", json!("")),
        (3, "/spec/gatewayClassName", json!("nobodys")),
        (3, "/spec/addresses/0/value", json!("nowhere")),
        (3, "/spec/addresses/0/type", json!("Moon")),
        (3, "/spec/listeners", json!([])),
        (3, "/spec/listeners/0/port", json!(0)),
        (3, "/spec/listeners/0/port", json!(99_999)),
        (3, "/spec/listeners/0/protocol", json!("SMOKE")),
        (3, "/spec/listeners/0/hostname", json!("a..b")),
        (
            3,
            "/spec/listeners/0",
            json!({"name": "taken", "port": 50052, "protocol": "TCP"}),
        ),
        (
            3,
            "/spec/listeners/0",
            json!({"name": "spoilt", "port": 9443, "protocol": "HTTPS"}),
        ),
        (4, "/spec/ports/0/port", json!(0)),
        (4, "/spec/ports/0/port", json!("http")),
        (5, "/endpoints/0/addresses/0", json!("0.0.0.0")),
        (5, "/endpoints/0/addresses/0", json!("nowhere")),
        (5, "/addressType", json!("FQDN")),
        (6, "/spec/from", json!([])),
        (7, "/spec/targetRefs", json!([])),
        (7, "/spec/validation/wellKnownCACertificates", json!("Moon")),
    ];
    let bombs = [
        "(",
        "((a{1,1000}){1,1000}){1,1000}",
        "(?=a)b",
        "\\1",
        "[z-a]",
        "(a|b|c){5000}",
        "((((a*)*)*)*)*{900}{900}",
    ];
    found.extend(bombs.map(|bomb| (0, "/spec/rules/0/matches/0/path", pattern(bomb))));
    found
}

fn openssl(args: &[&str]) -> Result<String> {
    let output = Command::new("openssl").args(args).stdin(Stdio::null()).output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "openssl {args:?}: {complaint}");
    Ok(String::from_utf8(output.stdout)?)
}

/// A certificate for itself, and its key.
fn pair() -> Result<(String, String)> {
    let mut args = vec![
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ];
    args.extend([
        "-days",
        "30",
        "-subj",
        "/CN=spoilt.example",
        "-keyout",
        "-",
        "-out",
        "-",
    ]);
    let text = openssl(&args)?;
    let at = text.find("-----BEGIN CERTIFICATE").context("a certificate")?;
    let (key, certificate) = text.split_at(at);
    ensure!(key.contains("PRIVATE KEY"), "openssl writes the key first");
    Ok((certificate.to_owned(), key.to_owned()))
}

/// Listeners with certificates, made by openssl, that cannot be shown.
fn certificates() -> Result<Vec<Mutant>> {
    let ((certificate, key), (_, other)) = (pair()?, pair()?);
    let both = Lab::file("spoilt.pem");
    std::fs::write(&both, format!("{key}{certificate}"))?;
    let file = both.display().to_string();
    let over = openssl(&["x509", "-in", &file, "-signkey", &file, "-days", "-1"])?;
    let rows = [
        ("the key of another one", certificate.clone(), other),
        ("one that is over", over, key.clone()),
        ("cut off", certificate[..certificate.len() / 2].to_owned(), key.clone()),
        ("a key cut off", certificate.clone(), key[..key.len() / 2].to_owned()),
        ("no certificate", String::new(), key.clone()),
        ("no key", certificate.clone(), String::new()),
        ("in each other's place", key.clone(), certificate.clone()),
        (
            "an encrypted key",
            certificate.clone(),
            key.replace("PRIVATE", "ENCRYPTED PRIVATE"),
        ),
        (
            "letters that are no base64",
            certificate.replacen("MII", "M!!", 1),
            key.clone(),
        ),
        (
            "no X.509",
            "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n".to_owned(),
            key.clone(),
        ),
        ("10,000 of them", certificate.repeat(10_000), key.clone()),
    ];
    let mutants = rows.into_iter().map(|(what, certificate, key)| {
        let mut gateway = bases().swap_remove(3);
        gateway["spec"]["listeners"][0] =
            json!({"name": "spoilt", "port": 9443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "spoilt"}]}});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "spoilt"}, "type": "kubernetes.io/tls",
                            "stringData": {"tls.crt": certificate, "tls.key": key}});
        Mutant {
            what: format!("certificate: {what}"),
            text: format!("{gateway}\n---\n{secret}"),
        }
    });
    Ok(mutants.collect())
}
