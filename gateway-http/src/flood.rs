//! The closed set of what ends a connection for asking too much ([`Flood`]): one bound, one counter, one word each.
//!
//! Each is answered with GOAWAY(ENHANCE_YOUR_CALM) (RFC 9113 10.5) whose debug data is [`Flood::why`], where the peer
//! takes anything at all.

/// Which bound a peer went over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Flood {
    /// RST_STREAM for requests that were not answered (rapid reset, CVE-2023-44487).
    Resets,
    /// Most streams are reset right after they were opened.
    PrematureResets,
    /// Streams that had to be reset because of the peer (MadeYouReset, CVE-2025-8671).
    MadeResets,
    /// Streams opened above SETTINGS_MAX_CONCURRENT_STREAMS.
    RefusedStreams,
    /// CONTINUATION frames of one field block.
    Continuations,
    /// A field block many times larger than a head may be.
    FieldBlock,
    /// A field block that does not end.
    FieldBlockTime,
    Pings,
    Settings,
    Priorities,
    /// Frames of unknown types, and GOAWAY again and again.
    UnknownFrames,
    WindowUpdates,
    EmptyData,
    SmallData,
    /// Answers to control frames that the peer does not read.
    OutboundControl,
    /// Heads and trailers that the peer does not read.
    OutboundHeads,
    /// Bytes that the peer does not read.
    OutboundBytes,
}

impl Flood {
    pub const ALL: [Flood; 17] = [
        Flood::Resets,
        Flood::PrematureResets,
        Flood::MadeResets,
        Flood::RefusedStreams,
        Flood::Continuations,
        Flood::FieldBlock,
        Flood::FieldBlockTime,
        Flood::Pings,
        Flood::Settings,
        Flood::Priorities,
        Flood::UnknownFrames,
        Flood::WindowUpdates,
        Flood::EmptyData,
        Flood::SmallData,
        Flood::OutboundControl,
        Flood::OutboundHeads,
        Flood::OutboundBytes,
    ];

    /// Name in metrics and in `docs/faults.md`.
    pub const fn name(self) -> &'static str {
        match self {
            Flood::Resets => "resets",
            Flood::PrematureResets => "premature_resets",
            Flood::MadeResets => "made_resets",
            Flood::RefusedStreams => "refused_streams",
            Flood::Continuations => "continuations",
            Flood::FieldBlock => "field_block",
            Flood::FieldBlockTime => "field_block_time",
            Flood::Pings => "pings",
            Flood::Settings => "settings",
            Flood::Priorities => "priorities",
            Flood::UnknownFrames => "unknown_frames",
            Flood::WindowUpdates => "window_updates",
            Flood::EmptyData => "empty_data",
            Flood::SmallData => "small_data",
            Flood::OutboundControl => "outbound_control",
            Flood::OutboundHeads => "outbound_heads",
            Flood::OutboundBytes => "outbound_bytes",
        }
    }

    /// GOAWAY's debug data: the bound by its setting, and what went over it.
    pub const fn why(self) -> &'static str {
        match self {
            Flood::Resets => "limits.resetsBurst: too many RST_STREAM",
            Flood::PrematureResets => "limits.prematureStreams: most streams are reset at once",
            Flood::MadeResets => "limits.madeResetsBurst: too many stream errors",
            Flood::RefusedStreams => "limits.refusedStreamsBurst: too many streams above the limit",
            Flood::Continuations => "limits.continuations: too many CONTINUATION",
            Flood::FieldBlock => "limits.headBytes: field block too long",
            Flood::FieldBlockTime => "timeouts.fieldBlock: field block not finished in time",
            // In gRPC's words, so that its clients ping less from then on (gRFC A8).
            Flood::Pings => "too_many_pings",
            Flood::Settings => "limits.settingsBurst: too many SETTINGS",
            Flood::Priorities => "limits.idleFramesPerStream: too many PRIORITY",
            Flood::UnknownFrames => "limits.idleFramesPerStream: too many frames of unknown types",
            Flood::WindowUpdates => "limits.updatesPerData: too many WINDOW_UPDATE",
            Flood::EmptyData => "limits.emptyData: too many empty DATA",
            Flood::SmallData => "limits.smallDataBurst: too many small DATA",
            Flood::OutboundControl => "limits.controlFrames: control frames are not read",
            Flood::OutboundHeads => "limits.outHeads: heads are not read",
            Flood::OutboundBytes => "limits.controlBytes: answers are not read",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flood_has_its_row_with_the_setting_it_goes_over() {
        let page = include_str!("../../docs/faults.md");
        let section = page
            .split("\n## ")
            .find(|section| section.starts_with("Floods"))
            .expect("a section of floods");
        let rows: Vec<Vec<&str>> = section
            .lines()
            .filter(|line| line.starts_with("| `"))
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        assert_eq!(rows.len(), Flood::ALL.len());
        for (row, (place, flood)) in rows.iter().zip(Flood::ALL.iter().enumerate()) {
            assert_eq!(row[0].trim_matches('`'), flood.name());
            assert_eq!(*flood as usize, place, "in the order of the enum");
            if let Some((setting, _)) = flood.why().split_once(':') {
                assert!(row[2].contains(setting), "{setting} in {row:?}");
            }
        }
    }
}
