"""What every part may use: settings, errors, wire constants, logging and sealing of secrets."""
