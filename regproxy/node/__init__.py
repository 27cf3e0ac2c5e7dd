"""Configures one machine of a Kubernetes cluster, and undoes that: the program of the DaemonSet.

It is a part of the image and nothing else of the proxy's: it reads and writes the files of a host
below a mount point, one thing after the other, and is no service of Twisted's. What it needs
besides the standard library are values of the pure rooms.
"""
