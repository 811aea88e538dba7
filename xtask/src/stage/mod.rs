//! The stages: one file each, a function of its inputs. See `pipeline` for their order.

pub mod busybox;
pub mod crates;
pub mod fetch;
pub mod initramfs;
pub mod iproute2;
pub mod iso;
pub mod kernel;
pub mod licences;
pub mod musl;
pub mod rootfs;
pub mod runtime;
pub mod tini;
pub mod unpack;
