# Python's bindings of libmount, as far as crun's suite uses them: Debian has the library without them. In: a file in the form of
# mountinfo. Out: what the library reads in it. Must never: read it by itself.

import ctypes

library = ctypes.CDLL("libmount.so.1")
BACKWARD = 1  # MNT_ITER_BACKWARD: the mount on top first, as in the library's own bindings


def function(name, result, *arguments):
    bound = getattr(library, name)
    bound.restype, bound.argtypes = result, arguments
    return bound


new_table = function("mnt_new_table_from_file", ctypes.c_void_p, ctypes.c_char_p)
find_target = function("mnt_table_find_target", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int)
vfs_options = function("mnt_fs_get_vfs_options", ctypes.c_char_p, ctypes.c_void_p)
fs_options = function("mnt_fs_get_fs_options", ctypes.c_char_p, ctypes.c_void_p)


class Fs:
    def __init__(self, pointer):
        self.vfs_options = vfs_options(pointer).decode()
        self.fs_options = fs_options(pointer).decode()


class Table:
    def __init__(self, path):
        self.pointer = new_table(path.encode())
        if not self.pointer:
            raise OSError("%s: libmount can't read it" % path)

    def find_target(self, path):
        pointer = find_target(self.pointer, path.encode(), BACKWARD)
        if not pointer:
            raise KeyError(path)
        return Fs(pointer)
