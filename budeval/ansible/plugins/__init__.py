"""Plugins that Ansible loads by path, see ``ansible.cfg``."""
