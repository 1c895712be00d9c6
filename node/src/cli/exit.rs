//! Exit codes: a published, stable list.

use std::process::ExitCode;

use crate::api::client::ClientError;

/// How a verb ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// Wrong usage, or a configuration that is missing or does not fit.
    Usage,
    /// Refused by a safety gate; nothing was changed.
    Refused,
    /// Failed, and what had been done was taken back.
    RolledBack,
    /// Failed; an operator must look.
    NeedsOperator,
    /// No quorum, or no agent to ask.
    NoQuorum,
    /// The time was up; what was asked for may still be under way.
    TimedOut,
}

impl Exit {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 7] = [
        Self::Done,
        Self::Usage,
        Self::Refused,
        Self::RolledBack,
        Self::NeedsOperator,
        Self::NoQuorum,
        Self::TimedOut,
    ];

    /// The code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Usage => 1,
            Self::Refused => 2,
            Self::RolledBack => 3,
            Self::NeedsOperator => 4,
            Self::NoQuorum => 5,
            Self::TimedOut => 6,
        }
    }

    /// What it means, for the operator's page.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Usage => {
                "wrong usage, or a configuration or file that is missing or does not fit; `doctor`: a FAIL"
            }
            Self::Refused => "refused by a check, or nobody said yes; nothing was changed",
            Self::RolledBack => "failed, and what had been done was taken back",
            Self::NeedsOperator => "failed, and an operator must look",
            Self::NoQuorum => "no quorum, or no agent to ask",
            Self::TimedOut => "the time was up; what was asked for may still be under way",
        }
    }

    /// The code for a request that the agent did not answer as wanted.
    #[must_use]
    pub fn of(error: &ClientError) -> Self {
        use crate::api::types::ErrorCode;
        match error {
            ClientError::NoAgent { .. } | ClientError::Broken { .. } => Self::NoQuorum,
            ClientError::Denied { .. } | ClientError::Decode { .. } => Self::Usage,
            ClientError::TimedOut { .. } => Self::TimedOut,
            ClientError::Answered { body, .. } => match body.code {
                ErrorCode::NotFound | ErrorCode::BadRequest => Self::Usage,
                ErrorCode::Refused => Self::Refused,
                ErrorCode::NoQuorum | ErrorCode::Stopping => Self::NoQuorum,
                ErrorCode::TimedOut | ErrorCode::Busy => Self::TimedOut,
            },
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_published_ones() {
        let codes: Vec<u8> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6]);
    }
}
