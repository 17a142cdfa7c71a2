//! The suite's ConformanceReport, read as far as the page tells of it.
//!
//! It is the YAML that `sigs.k8s.io/yaml` writes: keys sorted, two spaces a level, lists at their key's own level.

/// One profile's part.
#[derive(Default, PartialEq, Eq, Debug)]
pub struct Profile {
    pub name: String,
    pub core: Part,
    pub extended: Part,
    pub supported: Vec<String>,
    pub unsupported: Vec<String>,
}

/// Core or extended.
#[derive(Default, PartialEq, Eq, Debug)]
pub struct Part {
    pub passed: u32,
    pub failed: u32,
    pub skipped: u32,
}

/// The profiles of a report, by name.
pub fn read(text: &str) -> Vec<Profile> {
    let mut profiles: Vec<Profile> = Vec::new();
    let (mut part, mut list) = (String::new(), String::new());
    let lines = text.lines().skip_while(|line| *line != "profiles:").skip(1);
    for line in lines.take_while(|line| line.starts_with([' ', '-'])) {
        if line.starts_with("- ") {
            profiles.push(Profile::default());
        }
        let Some(profile) = profiles.last_mut() else { continue };
        // The dash of a list's entry stands where its key's first space would be.
        let depth = line.len() - line.trim_start_matches([' ', '-']).len();
        let entry = line.trim_start().starts_with("- ") && !line.starts_with('-');
        let word = line.trim_start_matches([' ', '-']);
        if entry {
            match &*list {
                "supportedFeatures" => profile.supported.push(word.to_owned()),
                "unsupportedFeatures" => profile.unsupported.push(word.to_owned()),
                _ => {}
            }
            continue;
        }
        let (key, value) = word.split_once(':').unwrap_or((word, ""));
        let value = value.trim();
        list = key.to_owned();
        match depth {
            2 => {
                part = key.to_owned();
                if key == "name" {
                    profile.name = value.to_owned();
                }
            }
            _ => {
                let part = match &*part {
                    "core" => &mut profile.core,
                    "extended" => &mut profile.extended,
                    _ => continue,
                };
                let count = value.parse().unwrap_or(0);
                match key {
                    "Passed" => part.passed = count,
                    "Failed" => part.failed = count,
                    "Skipped" => part.skipped = count,
                    _ => {}
                }
            }
        }
    }
    profiles.sort_by(|a, b| a.name.cmp(&b.name));
    profiles
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "\
apiVersion: gateway.networking.k8s.io/v1
implementation:
  contact:
  - rig
kind: ConformanceReport
profiles:
- core:
    failedTests:
    - TLSRouteHostnameIntersection
    result: failure
    statistics:
      Failed: 1
      Passed: 18
      Skipped: 0
  extended:
    result: success
    statistics:
      Failed: 0
      Passed: 4
      Skipped: 2
    supportedFeatures:
    - GatewayPort8080
    unsupportedFeatures:
    - ListenerSet
    - GatewayHTTPListenerIsolation
  name: GATEWAY-TLS
  summary: Core tests failed.
- core:
    result: success
    statistics:
      Failed: 0
      Passed: 15
      Skipped: 0
  name: GATEWAY-GRPC
  summary: Core tests succeeded.
succeededProvisionalTests:
- TCPRouteSimple
";

    #[test]
    fn profiles_are_read_with_their_counts_and_features() {
        let profiles = read(REPORT);
        let names: Vec<&str> = profiles.iter().map(|profile| &*profile.name).collect();
        assert_eq!(names, ["GATEWAY-GRPC", "GATEWAY-TLS"]);
        let part = |passed, failed, skipped| Part {
            passed,
            failed,
            skipped,
        };
        assert_eq!(
            (&profiles[0].core, &profiles[0].extended),
            (&part(15, 0, 0), &part(0, 0, 0))
        );
        assert_eq!(
            (&profiles[1].core, &profiles[1].extended),
            (&part(18, 1, 0), &part(4, 0, 2))
        );
        assert_eq!(profiles[1].supported, ["GatewayPort8080"]);
        assert_eq!(profiles[1].unsupported, ["ListenerSet", "GatewayHTTPListenerIsolation"]);
    }

    #[test]
    fn a_report_without_profiles_has_none() {
        assert_eq!(read("kind: ConformanceReport\n"), []);
    }
}
