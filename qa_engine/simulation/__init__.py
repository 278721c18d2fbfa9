"""Simulated patients (CT, MR) as DICOM series, and degradations of images with a severity in a physical unit."""
