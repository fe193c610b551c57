"""Heatmaps -> fractional segmentations, one for each image of the newest exam.

A mammogram has no frame of reference, so every pixel of the segmentation must be a pixel of the
image (PS3.3 A.51.5.1) and its matrix can be no smaller. Each pixel carries the value of the cell
of the model's grid that it lies in: nothing is invented between the cells, and repeated rows let
run-length coding make 12 megapixels small.
"""

from __future__ import annotations

import struct

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sr.coding import Code
from pydicom.uid import RLELossless, SegmentationStorage

from app.bundle import DISCLAIMER
from app.imaging.facts import Laterality
from app.imaging.preprocess import Crop
from app.render import dicom
from app.render.heatmap import levels
from app.render.result import StudyResult
from app.render.uids import instance_uid

_FULL_SCALE = 255
# What the pixels hold: CID 7150 without a claim of anatomy or of a lesion, and CID 218
_CATEGORY = Code("309825002", "SCT", "Spatial and Relational Concept")
_PROPERTY = Code("130403", "DCM", "Gradient-weighted class activation")
_SEGMENTATION = Code("113076", "DCM", "Segmentation")
_ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")  # CID 7162
_BREAST = Code("76752008", "SCT", "Breast")
_SIDE = {"L": Code("7771000", "SCT", "Left"), "R": Code("24028007", "SCT", "Right")}
_ORANGE = (41939, 43770, 50099)  # of the overlay, as L*a*b* (PS3.3 C.10.7.1.1)


def segmentations(result: StudyResult) -> list[bytes]:
    """The heatmap of each image of the newest exam as a DICOM file, in the order of the request.

    Raises ``NoStudyError``.
    """
    return [
        _segmentation(result, stored, number)
        for number, stored in enumerate(dicom.current_images(result), 1)
    ]


def on_source_grid(
    heatmap: NDArray[np.float32], crop: Crop, scale: float, rows: int, columns: int
) -> NDArray[np.uint8]:
    """The map at the size of its image, uint8 [rows, columns]: each pixel has the value of its
    cell, 255 for ``scale``; 0 outside of what the model saw."""
    cells = levels(heatmap[:, ::-1] if crop.flipped else heatmap, scale)
    whole = np.zeros((rows, columns), np.uint8)
    whole[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width] = cv2.resize(
        cells, (crop.width, crop.height), interpolation=cv2.INTER_NEAREST_EXACT
    )
    return whole


def _segmentation(result: StudyResult, stored: dicom.Stored, number: int) -> bytes:
    image = stored.image
    rows, columns = image.facts.rows, image.facts.columns
    dataset = dicom.new_object(
        result,
        "map",
        sop_class=SegmentationStorage,
        modality="SEG",
        instance=instance_uid(result, "map", stored.reference.instance),
        number=number,
        transfer_syntax=RLELossless,
    )
    dicom.describe_image(
        dataset,
        stored,
        f"Grad-CAM of the class {result.target_class}: where the evidence lies, relative to the "
        "highest of this breast. Neither a probability nor the outline of a lesion.",
    )
    _set_segmentation_image(dataset, result, stored)
    dataset.Rows, dataset.Columns = rows, columns
    dataset.PixelData = encapsulate(
        [
            _run_lengths(
                on_source_grid(image.heatmap, image.crop, stored.breast.scale, rows, columns)
            )
        ]
    )
    dataset["PixelData"].VR = "OB"
    dimensions = instance_uid(result, "dimensions", stored.reference.instance)
    _set_functional_groups(dataset, dimensions, stored.reference)
    dicom.refer(dataset, [stored.reference])
    return dicom.written(dataset)


def _set_segmentation_image(dataset: Dataset, result: StudyResult, stored: dicom.Stored) -> None:
    """Segmentation Image module (PS3.3 C.8.20.2)."""
    dataset.ImageType = ["DERIVED", "PRIMARY"]  # the only values there are
    dataset.ContentLabel = "HEATMAP"
    dataset.ContentDescription = "Grad-CAM heatmap, for research, not for diagnosis"
    dataset.ContentCreatorName = ""
    dataset.BurnedInAnnotation = "NO"
    ratios, methods = dicom.lossy_history(stored.header)
    dataset.LossyImageCompression = "01" if dicom.was_lossy(stored.header) else "00"
    if methods:
        dataset.LossyImageCompressionRatio = ratios
        dataset.LossyImageCompressionMethod = methods
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelRepresentation = 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.SegmentationType = "FRACTIONAL"
    dataset.SegmentationFractionalType = "PROBABILITY"
    dataset.MaximumFractionalValue = _FULL_SCALE
    dataset.SegmentSequence = [_segment(result, stored.laterality)]


def _segment(result: StudyResult, laterality: Laterality | None) -> Dataset:
    segment = Dataset()
    segment.SegmentNumber = 1
    segment.SegmentLabel = dicom.short(f"Grad-CAM of {result.target_class}")
    segment.SegmentDescription = f"Evidence, relative to its highest. {DISCLAIMER}"
    segment.SegmentedPropertyCategoryCodeSequence = [dicom.coded(_CATEGORY)]
    segment.SegmentedPropertyTypeCodeSequence = [dicom.coded(_PROPERTY)]
    region = dicom.coded(_BREAST)
    if laterality is not None:
        region.AnatomicRegionModifierSequence = [dicom.coded(_SIDE[laterality])]
    segment.AnatomicRegionSequence = [region]
    segment.SegmentAlgorithmType = "AUTOMATIC"
    segment.SegmentAlgorithmName = dicom.short(result.manifest.name)
    algorithm = Dataset()
    algorithm.AlgorithmFamilyCodeSequence = [dicom.coded(_ARTIFICIAL_INTELLIGENCE)]
    algorithm.AlgorithmName = dicom.short(result.manifest.name)
    algorithm.AlgorithmVersion = dicom.short(result.manifest.version)
    algorithm.AlgorithmParameters = f"sha256 {result.bundle_sha256}"
    segment.SegmentationAlgorithmIdentificationSequence = [algorithm]
    segment.RecommendedDisplayCIELabValue = list(_ORANGE)
    return segment


def _set_functional_groups(dataset: Dataset, dimensions: str, reference: dicom.Reference) -> None:
    """Multi-frame Functional Groups and Dimension modules (PS3.3 C.7.6.16, C.7.6.17) of one frame
    of one segment; without a frame of reference the source image gives the place."""
    organization = Dataset()
    organization.DimensionOrganizationUID = dimensions
    index = Dataset()
    index.DimensionOrganizationUID = dimensions
    index.DimensionIndexPointer = 0x0062000B  # Referenced Segment Number
    index.FunctionalGroupPointer = 0x0062000A  # Segment Identification Sequence
    index.DimensionDescriptionLabel = "Segment Number"
    dataset.DimensionOrganizationSequence = [organization]
    dataset.DimensionIndexSequence = [index]

    identification = Dataset()
    identification.ReferencedSegmentNumber = 1
    shared = Dataset()
    shared.SegmentIdentificationSequence = [identification]
    derivation = Dataset()
    derivation.DerivationCodeSequence = [dicom.coded(_SEGMENTATION)]
    source = dicom.source_image(reference)
    source.SpatialLocationsPreserved = "YES"
    derivation.SourceImageSequence = [source]
    content = Dataset()
    content.DimensionIndexValues = [1]
    frame = Dataset()
    frame.FrameContentSequence = [content]
    frame.DerivationImageSequence = [derivation]
    dataset.NumberOfFrames = 1
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = [frame]


def _run_lengths(pixels: NDArray[np.uint8]) -> bytes:
    """One frame of 8 bit in RLE Lossless (PS3.5 Annex G): a header and one segment of PackBits,
    each row on its own."""
    segment = imagecodecs.packbits_encode(pixels)
    header = struct.pack("<16L", 1, 64, *[0] * 14)
    return header + segment + b"\0" * (len(segment) % 2)
