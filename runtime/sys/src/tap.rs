//! Making a tap interface: ioctls on /dev/net/tun, since netlink can't. In: name, owner, group. Out: nothing.
//! Must never: keep the interface's file open; it would be the program's end of it.
#![allow(unsafe_code)] // rustix has none of these ioctls

use std::ffi::c_int;
use std::ffi::c_ulong;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::process::last_errno;

const DEVICE: &str = "/dev/net/tun";
const NAME_LEN: usize = 16;
/// `struct ifreq` has 40 bytes: the name, then a union whose first field is taken here.
const REQUEST_LEN: usize = 40;

/// A tap interface to be made.
#[derive(Debug, Clone, Copy)]
pub struct Tap<'a> {
    /// Its name.
    pub name: &'a str,
    /// Who may open it; `None` is who may administer the network.
    pub owner: Option<u32>,
    /// The members of which group may open it.
    pub group: Option<u32>,
    /// Whether several programs' files may be queues of it.
    pub multi_queue: bool,
}

impl Tap<'_> {
    /// Makes it in the calling thread's network namespace; it stays until it is removed
    /// ([TUNSETIFF](https://docs.kernel.org/networking/tuntap.html)).
    ///
    /// # Errors
    /// EBUSY when there is one of that name in use, EINVAL when the name is another kind's; ENOENT, ENODEV without the
    /// driver.
    #[doc(alias = "TUNSETIFF")]
    pub fn create(&self) -> Result<(), Errno> {
        let file = rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        if self.multi_queue {
            flags |= libc::IFF_MULTI_QUEUE;
        }
        let mut request = [0_u8; REQUEST_LEN];
        let name = self.name.as_bytes();
        request
            .get_mut(..name.len().min(NAME_LEN - 1))
            .ok_or(Errno::INVAL)?
            .copy_from_slice(name.get(..name.len().min(NAME_LEN - 1)).ok_or(Errno::INVAL)?);
        let flags = u16::try_from(flags).map_err(|_| Errno::INVAL)?;
        request[NAME_LEN..NAME_LEN + 2].copy_from_slice(&flags.to_ne_bytes());
        // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, which the array's bytes are; no field is a pointer.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, request.as_mut_ptr()) };
        if result < 0 {
            return Err(last_errno());
        }
        for (operation, id) in [(libc::TUNSETOWNER, self.owner), (libc::TUNSETGROUP, self.group)] {
            if let Some(id) = id {
                set(&file, operation, id.into())?;
            }
        }
        set(&file, libc::TUNSETPERSIST, 1) // the last one: until then a failure takes the interface away
    }
}

fn set(file: &OwnedFd, operation: libc::Ioctl, value: c_ulong) -> Result<(), Errno> {
    // SAFETY: these operations take their argument by value and touch no memory of ours.
    let result: c_int = unsafe { libc::ioctl(file.as_raw_fd(), operation, value) };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}
