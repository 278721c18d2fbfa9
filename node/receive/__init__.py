"""DICOM reception: the upper layer and the C-STORE and C-ECHO services, bytes to disk as they came (DESIGN sections 2 and 8)."""
