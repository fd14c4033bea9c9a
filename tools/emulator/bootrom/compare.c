// Three-way compares of the float tables: -1, 0 or 1.
int rom_fcmp(float a, float b) { return (a > b) - (a < b); }
int rom_dcmp(double a, double b) { return (a > b) - (a < b); }
