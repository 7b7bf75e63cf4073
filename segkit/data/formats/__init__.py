"""The label formats that `segkit data convert` reads, one file each."""
