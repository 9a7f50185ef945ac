# SPDX-License-Identifier: Apache-2.0
"""Labeled face data sets behind one interface: FER+, RAF-DB, AffectNet, SFEW, class folders."""
