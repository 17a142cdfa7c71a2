//! GatewayClasses: which are ours, and what they are told.

use super::condition::condition;
use super::parameters::{self, Parameters};
use super::{Work, features};
use crate::diagnostic::Severity;
use crate::status::{ConditionKind, ObjectStatus, Status, reason};
use std::collections::BTreeMap;

/// Our classes by name, with their parameters; `Err`: why those cannot be used.
pub(super) type Classes<'o> = BTreeMap<&'o str, Result<Parameters, String>>;

/// Versions of the Gateway API whose objects are read: `v1.<minor>` up to this one.
const MINOR_MAX: u32 = 7;

/// The classes that are ours, and the statuses of their objects.
pub(super) fn classes<'o>(work: &mut Work<'o>) -> (Classes<'o>, Vec<ObjectStatus>) {
    let (objects, settings) = (work.objects, work.settings);
    let mut ours = Classes::new();
    let mut statuses = Vec::new();
    // Without an object of its name the default class exists by itself.
    if !objects
        .gateway_classes
        .values()
        .any(|class| class.id.name == settings.class)
    {
        ours.insert(settings.class.as_str(), Ok(Parameters::default()));
    }
    for class in objects
        .gateway_classes
        .values()
        .filter(|c| c.body.spec.controller_name == settings.controller)
    {
        let to = class.body.spec.parameters_ref.as_ref();
        let parameters = to.map_or(Ok(Parameters::default()), |to| {
            parameters::read(work, class.subject(), "spec.parametersRef", to, to.namespace.as_deref())
        });
        let generation = class.meta.generation;
        let accepted = match &parameters {
            Ok(_) => (true, reason::ACCEPTED, String::new()),
            Err(problem) => (false, reason::INVALID_PARAMETERS, problem.clone()),
        };
        ours.insert(class.id.name.as_str(), parameters);
        let mut conditions = vec![condition(ConditionKind::Accepted, accepted, generation)];
        if let Some(version) = &settings.api_version {
            let told = supported(version);
            if !told.0 {
                let remedy = format!("install v1.{MINOR_MAX} of the Gateway API, or an older v1");
                work.found
                    .push(class.subject().finding(Severity::Warning, "", told.2.as_str(), remedy));
            }
            conditions.push(condition(ConditionKind::SupportedVersion, told, generation));
        }
        statuses.push(ObjectStatus {
            object: class.id.clone(),
            status: Status::Class {
                conditions,
                supported_features: features::SUPPORTED,
            },
        });
    }
    (ours, statuses)
}

/// Whether the objects of a version of the API are read whole. Those of another one are read as far as they are known.
fn supported(version: &str) -> (bool, &'static str, String) {
    let mut numbers = version.strip_prefix('v').unwrap_or(version).split(['.', '-']);
    let (major, minor) = (numbers.next(), numbers.next().and_then(|text| text.parse::<u32>().ok()));
    match (major, minor) {
        (Some("1"), Some(minor)) if minor <= MINOR_MAX => (true, reason::SUPPORTED_VERSION, String::new()),
        _ => {
            let told = format!("the cluster has Gateway API {version}; v1.0 to v1.{MINOR_MAX} are supported");
            (false, reason::UNSUPPORTED_VERSION, told)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_up_to_the_one_we_know_are_supported() {
        for (version, holds) in [
            ("v1.7.0", true),
            ("v1.0.0-rc1", true),
            ("v1.8.0", false),
            ("v2.0.0", false),
            ("main", false),
        ] {
            assert_eq!(supported(version).0, holds, "{version}");
        }
    }
}
