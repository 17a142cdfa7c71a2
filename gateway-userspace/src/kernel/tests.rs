//! Choosing a datapath: what is asked for, what is there, and what is said where they differ.

use super::*;

fn options(datapath: Datapath) -> KernelOptions {
    KernelOptions {
        datapath,
        interfaces: Vec::new(),
        pin_dir: "/sys/fs/bpf/slr-unit".into(),
        return_path_gateway: false,
        on_idle: Box::new(drop),
        udp_idle: Duration::from_secs(300),
    }
}

#[test]
fn off_needs_nothing_and_does_nothing() {
    let kernel = Kernel::start(options(Datapath::Off)).unwrap();
    let status = kernel.status();
    assert_eq!((status.ingress, status.lookup), ("off", false));
    assert_eq!(status.reasons, ["the datapath is off, as was asked"]);
    assert!(kernel.adopted().is_none() && kernel.counters().is_empty() && kernel.flows(|_| None).is_empty());
    assert!(kernel.reach("10.0.0.1:80".parse().unwrap()).is_err());
    kernel.register_listener(0, false, 0).unwrap();
    kernel.stop(false).unwrap();
    assert!(!Path::new("/sys/fs/bpf/slr-unit").exists());
}

#[test]
fn an_errno_decides_between_permission_and_lack() {
    let error = |errno| KernelError::from_io("x", &std::io::Error::from_raw_os_error(errno));
    assert!(matches!(error(libc::EPERM), KernelError::NotPermitted(_)));
    assert!(matches!(error(libc::EOPNOTSUPP), KernelError::Unavailable(_)));
    assert!(matches!(error(libc::ENOMEM), KernelError::Failed(_)));
}

#[test]
fn an_interface_that_is_not_there_is_named_with_those_that_are() {
    let mut options = options(Datapath::Tcx);
    options.interfaces = vec!["no-such-if0".into()];
    options.pin_dir = "/sys/fs/bpf/slr-unit-missing".into();
    let Err(error) = Kernel::start(options) else {
        panic!("it started")
    };
    // Without privilege or object the answer is about that.
    let text = error.to_string();
    assert!(text.contains("--datapath tcx"), "{text}");
    if nix::unistd::Uid::effective().is_root() && load::build_facts().object.is_some() {
        assert!(
            matches!(error, KernelError::Unavailable(_)) && text.contains("no-such-if0, only lo"),
            "{text}"
        );
    }
}
