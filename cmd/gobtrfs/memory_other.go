//go:build !linux

package main

// hugePages is for Linux.
func hugePages() {}
