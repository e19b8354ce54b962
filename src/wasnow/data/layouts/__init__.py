"""Dataset layouts: one module per family, each returning a `Layout` or None.

    described   a dataset.yaml describes the folder                 any folder
    hrscd       images_2006, images_2012, labels_change, ...        HRSCD
    bright      *_pre_disaster, *_building_damage                   BRIGHT, DFC 2025 track 2
    xbd         *_pre_disaster, *_post_disaster                     xBD and datasets derived from it
    oscd        CITY/pair/img1.png, CITY/cm/cm.png                  OSCD
    whu         2012/whole_image/train/image, change_label/train    WHU-CD as published
    roles       folders named by their role, in any nesting         SECOND, LEVIR-CD, S2Looking, CLCD, SYSU, ...
    suffixes    file names that contain the role, in one folder     town_pre.png, town_post.png, town_mask.png
    roles       folders of other names, by their content            GeoTIFF pairs with polygons, ...

They are tried in this order, and the first match is used. A layout decides how label values are encoded only where it
defines that; otherwise see `wasnow.data.recognise`. `names` holds the names of roles, `lists` reads list files.
"""
