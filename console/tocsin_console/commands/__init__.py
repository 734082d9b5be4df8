"""The commands, one module a group. Each offers `app`, which `main` mounts under the group's name."""
