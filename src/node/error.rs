//! Why a node could not start or had to stop: each message says what to do.

use std::path::PathBuf;

/// A node's failure.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process has the data folder.
    #[error(
        "{}: another ringbolt process is using this data folder; stop it, or give another folder \
         with --data", .0.display()
    )]
    InUse(PathBuf),
    /// The folder was made by another version of the format.
    #[error(
        "{}: the data folder has format {found}, this version of ringbolt reads format {expected}; \
         use the version that made it, or give another folder with --data", dir.display()
    )]
    Format {
        /// The folder.
        dir: PathBuf,
        /// What it has.
        found: u32,
        /// What this version reads.
        expected: u32,
    },
    /// The folder is not empty and was not made by Ringbolt.
    #[error(
        "{}: the folder is not empty and is not a Ringbolt data folder (it has no FORMAT file); \
         give an empty or a new folder with --data", .0.display()
    )]
    Foreign(PathBuf),
    /// The folder's description cannot be believed.
    #[error("{}: {what}; restore the file from a backup of the folder", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The folder was made for another number of cores.
    #[error(
        "{}: the data folder is laid out for {found} cores, --cores asks for {wanted}; start with \
         --cores {found}, or move the partitions first: ringbolt recore --data {} --cores {wanted}",
        dir.display(), dir.display()
    )]
    Cores {
        /// The folder.
        dir: PathBuf,
        /// For how many it was made.
        found: u16,
        /// How many are asked for.
        wanted: u16,
    },
    /// The folder is another node's.
    #[error(
        "{}: the data folder is that of node {found}, not of {wanted}: start it with --node {found}, \
         or give this node its own folder with --data", dir.display()
    )]
    OtherNode {
        /// The folder.
        dir: PathBuf,
        /// Whose it is.
        found: String,
        /// Who wanted it.
        wanted: String,
    },
    /// The folder was made with other peers.
    #[error(
        "{}: the data folder was made {}, this start is {}: give the same list as before, or a new \
         folder with --data", dir.display(), with_peers(found), with_peers(given)
    )]
    OtherPeers {
        /// The folder.
        dir: PathBuf,
        /// The list it was made with; empty for none.
        found: String,
        /// The list given now; empty for none.
        given: String,
    },
    /// The folder belongs to another cluster.
    #[error(
        "{}: the data folder is that of {found}, not of {wanted}: one of the nodes has the wrong \
         folder; check --data and --peers of each", dir.display()
    )]
    OtherCluster {
        /// The folder.
        dir: PathBuf,
        /// Where it belongs.
        found: String,
        /// What it was to become.
        wanted: String,
    },
    /// The data must not be used any more: see [`crate::cluster::ClusterView::outlived`].
    #[error("the data of this node must not be used any more: {0}")]
    Outlived(String),
    /// Too many folders of data that was lost are kept.
    #[error(
        "{}: the data is lost ({why}), and {kept} folders of data that was lost before are kept in it \
         (lost-1 and so on): find out why it is lost so often, then remove those that are no longer \
         wanted", dir.display()
    )]
    LostTooOften {
        /// The folder.
        dir: PathBuf,
        /// What happened to it.
        why: String,
        /// How many are kept.
        kept: u32,
    },
    /// The node cannot become part of a cluster.
    #[error("{0}")]
    Cluster(String),
    /// There are more cores than partitions.
    #[error(
        "{cores} cores cannot share {partitions} partitions: use fewer cores, or format a new \
         folder with more partitions"
    )]
    TooManyCores {
        /// Cores asked for.
        cores: u16,
        /// Partitions of the folder.
        partitions: u16,
    },
    /// A required condition of the host does not hold.
    #[error("{0}")]
    Preflight(String),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {detail}; choose another with --listen")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// The system's words.
        detail: String,
    },
    /// A file or folder operation failed.
    #[error("{}: {detail}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's words.
        detail: String,
    },
    /// What a core's folder holds is damaged.
    #[error("core {core}: {detail}")]
    CoreDamaged {
        /// Which core.
        core: u16,
        /// What is damaged.
        detail: String,
    },
    /// A core could not start or had to stop.
    #[error("core {core}: {detail}")]
    Core {
        /// Which core.
        core: u16,
        /// What happened.
        detail: String,
    },
}

impl StartError {
    /// An operating-system error on a path.
    pub fn io(path: impl Into<PathBuf>, error: &std::io::Error) -> Self {
        Self::Io {
            path: path.into(),
            detail: error.to_string(),
        }
    }
}

fn with_peers(list: &str) -> String {
    match list {
        "" => "without --peers".to_owned(),
        list => format!("with --peers {list}"),
    }
}
