"""Labeled face data sets behind one interface: FER+, RAF-DB, AffectNet, SFEW, class folders."""
